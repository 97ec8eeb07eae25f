"""`evaluate`, `predict` and `scarce_jax.load` on finished runs: copied, on other devices, on any image file."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import scarce_jax
from scarce_jax.cli import main
from scarce_jax.data.builders.prepared import load_prepared
from scarce_jax.data.figures import COVERED, COVERED_BY_CLASS
from scarce_jax.data.images import read_image, write_png
from scarce_jax.data.index import Index, index_path
from scarce_jax.data.pictures import VOID_COLOUR, overlay
from scarce_jax.data.source import Reader
from scarce_jax.evaluation import files
from scarce_jax.ops.crf import PARAMETERS
from tests import tiny

KEYS = {
    "run", "result", "dataset", "split", "images", "miou", "mean_accuracy", "pixel_accuracy", "per_class", "confusion",
    "devices", "miou_at_size", "classes_measured",
}  # fmt: skip

OTHER_DEVICES = """
import json, sys
import jax, numpy as np
from tests import tiny
from scarce_jax.cli import main
import scarce_jax
from scarce_jax.cli import main
from scarce_jax.data.images import read_image

run, data, image, coarse = sys.argv[1:]
assert main(["evaluate", run, "--data-dir", data, "--json"]) == 0
labels = scarce_jax.load(run).predict(read_image(image), read_image(coarse)[..., 0])
print(json.dumps({"devices": jax.device_count(), "labels": labels.tolist()}))
"""


@pytest.fixture
def pictures(tmp_path):
    """A folder of image files of every kind, and what they show."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    image = Image.fromarray(picture)
    image.save(folder / "plain.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera lay on its side
    Image.fromarray(np.rot90(picture).copy()).save(folder / "turned.png", exif=turned)
    image.convert("L").save(folder / "grey.png")
    rgba = image.convert("RGBA")
    rgba.putalpha(255)
    rgba.save(folder / "alpha.webp", lossless=True)
    deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.tif")
    image.save(folder / "photo.JPG", quality=95)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_evaluate_gives_the_figures_of_the_summary(detailer_run, tiny_data, command):
    summary = json.loads((detailer_run / "summary.json").read_text())["results"]
    for name in ("detailer", "coarse", "classifier_composite"):
        finished = command("evaluate", detailer_run, "--data-dir", tiny_data, "--result", name, "--json")
        # The coarse mask alone leaves pixels void.
        keys = KEYS | {*COVERED, *COVERED_BY_CLASS} if name == "coarse" else KEYS
        assert finished.status == 0 and set(finished.json) == keys
        assert finished.json["run"] == str(detailer_run) and finished.json["result"] == name
        assert finished.json["devices"] == jax.device_count()
        shared = keys & set(summary[name])
        assert len(shared) >= 8 and {k: finished.json[k] for k in shared} == {k: summary[name][k] for k in shared}
        counts = np.array(finished.json["confusion"])
        assert counts.shape == (12, 13) and counts.sum() == tiny.SIZES["val"] * 256 * 256
        assert f"mIoU {finished.json['miou']:.4f}" in finished.out
    assert "striped fish" in finished.out


def test_evaluate_says_that_the_dataset_changed_since_training(supervised_run, tiny_data, command, monkeypatch):
    argv = ["evaluate", supervised_run, "--data-dir", tiny_data]
    before = command(*argv)
    assert "prepared again" not in before.err
    opened = Reader.__init__

    def changed(self, *arguments):
        opened(self, *arguments)
        self.version += "+12345678"

    monkeypatch.setattr(Reader, "__init__", changed)
    after = command(*argv)
    assert after.status == 0 and after.out == before.out
    assert (
        "dataset scenes was prepared again since the training, with other content" in after.err
        and "1.0.0+12345678" in after.err
    )


def test_evaluate_measures_another_split(detailer_run, tiny_data, command):
    figures = command("evaluate", detailer_run, "--data-dir", tiny_data, "--split", "train", "--json").json
    assert (figures["split"], figures["images"], figures["result"]) == ("train", tiny.SIZES["train"], "detailer")


def test_the_coarse_result_is_the_coarse_mask_scored_as_a_prediction(detailer_run, tiny_data, command):
    figures = command("evaluate", detailer_run, "--data-dir", tiny_data, "--result", "coarse", "--json").json
    reader = Reader("scenes", "val", str(tiny_data))
    examples = [reader.read(i) for i in range(len(reader))]
    fine, coarse = (np.stack([e[key] for e in examples]) for key in ("fine", "coarse"))
    assert (coarse == 255).any()
    for k, iou in enumerate(figures["per_class"].values()):
        # An unlabelled pixel misses its true class and harms no other.
        union = ((fine != 255) & ((fine == k) | (coarse == k))).sum()
        assert iou == (pytest.approx(((fine == k) & (coarse == k)).sum() / union) if union else None)


def test_evaluate_refines_with_a_crf_by_name(supervised_run, tiny_data, command, refused):
    plain = command("evaluate", supervised_run, "--data-dir", tiny_data, "--json").json
    figures = command("evaluate", supervised_run, "--data-dir", tiny_data, "--crf", "oaa", "--json").json
    assert figures["views"]["crf"] == dataclasses.asdict(PARAMETERS["oaa"])
    assert figures["confusion"] != plain["confusion"]
    assert np.sum(figures["confusion"]) == np.sum(plain["confusion"])
    refused("evaluate", supervised_run, "--data-dir", tiny_data, "--crf", "IRN", holds=["--crf IRN", *PARAMETERS])


def test_a_copied_run_on_one_device_gives_the_same(detailer_run, tiny_data, command, tmp_path):
    run = tmp_path / "elsewhere"
    shutil.copytree(detailer_run, run)
    here = command("evaluate", run, "--data-dir", tiny_data, "--json").json
    example = Reader("scenes", "val", str(tiny_data)).read(0)
    write_png(tmp_path / "image.png", example["image"])
    write_png(tmp_path / "coarse.png", example["coarse"])
    labels = scarce_jax.load(run).predict(example["image"], example["coarse"])
    words = [str(p) for p in (run, tiny_data, tmp_path / "image.png", tmp_path / "coarse.png")]
    there = subprocess.run(
        [sys.executable, "-c", OTHER_DEVICES, *words], env=tiny.environment(1), capture_output=True, text=True
    )
    assert there.returncode == 0, there.stderr
    *_, measured, predicted = there.stdout.splitlines()
    measured, predicted = json.loads(measured), json.loads(predicted)
    assert measured["devices"] == predicted["devices"] == 1 != here["devices"]
    assert {**measured, "devices": here["devices"]} == here
    np.testing.assert_array_equal(predicted["labels"], labels)


def test_predict_needs_the_run_folder_alone_and_reads_any_image_file(
    supervised_run, pictures, command, tmp_path, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    out = tmp_path / "out"
    finished = command("predict", supervised_run, pictures, "--out", out, "--confidence")
    assert finished.status == 0 and "6 images" in finished.out
    stems = {"plain", "turned", "grey", "alpha", "deep", "photo"}
    assert {p.name for p in out.iterdir()} == {f"{s}{kind}.png" for s in stems for kind in KINDS}
    masks = {s: np.asarray(Image.open(out / f"{s}.png")) for s in stems}
    assert all(mask.dtype == np.uint8 and mask.shape == (40, 56) and mask.max() < 12 for mask in masks.values())
    # One picture in several files: the same mask, the right way up.
    for same, other in (("plain", "turned"), ("plain", "alpha"), ("grey", "deep")):
        np.testing.assert_array_equal(masks[same], masks[other])
    predictor = scarce_jax.load(supervised_run)
    np.testing.assert_array_equal(predictor.predict(read_image(pictures / "photo.JPG")), masks["photo"])
    tinted = overlay(read_image(pictures / "plain.png"), masks["plain"], predictor.palette)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "plain_overlay.png"))[:40, :56], tinted)
    confidence = np.asarray(Image.open(out / "plain_confidence.png"))
    largest = predictor.probabilities(read_image(pictures / "plain.png")).max(-1)
    assert np.abs(confidence - largest * 255).max() <= 0.5 + 1e-3


KINDS = ("", "_overlay", "_confidence")


def test_without_confidence_none_is_written(supervised_run, pictures, command, tmp_path):
    assert command("predict", supervised_run, pictures / "plain.png", "--out", tmp_path / "out").status == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["plain.png", "plain_overlay.png"]


def test_predict_removes_what_killed_ones_left_and_nothing_that_others_use(
    supervised_run, pictures, command, tmp_path, monkeypatch
):
    out, write, seen = tmp_path / "out", files.write_png, []

    def look(path, *args):
        write(path, *args)
        if not seen:
            seen.append(path.parent)
            shutil.copytree(path.parent, path.parent.with_name(".scarce-jax-killed"))
            assert main(["predict", str(supervised_run), str(pictures / "grey.png"), "--out", str(out)]) == 0
            # It removed the one, and this folder, which is in use, stays.
            assert {path.name for path in out.glob(".*")} == {path.parent.name, ".scarce-jax-link"}

    out.mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.png").touch()
    (out / ".scarce-jax-link").symlink_to(tmp_path / "mine")
    monkeypatch.setattr(files, "write_png", look)
    assert command("predict", supervised_run, pictures / "plain.png", "--out", out).status == 0
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.png"]
    (out / ".scarce-jax-link").unlink()
    names = ["grey.png", "grey_overlay.png", "plain.png", "plain_overlay.png"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_images_of_several_sizes_in_one_command_as_alone(supervised_run, command, tmp_path):
    draw = np.random.default_rng(1)
    images = {f"p{k}": draw.integers(0, 256, size, np.uint8) for k, size in enumerate(SHAPES)}
    for name, image in images.items():
        write_png(tmp_path / f"{name}.png", image)
    files = [tmp_path / f"{name}.png" for name in images]
    assert command("predict", supervised_run, *files, "--out", tmp_path / "out").status == 0
    predictor = scarce_jax.load(supervised_run)
    for name, image in images.items():
        written = np.asarray(Image.open(tmp_path / f"out/{name}.png"))
        np.testing.assert_array_equal(written, predictor.predict(image))
        assert written.shape == image.shape[:2]


SHAPES = [(50, 60, 3), (130, 20, 3), (50, 61, 3), (1, 1, 3), (128, 128, 3)]


def test_the_composite_keeps_every_coarse_label(detailer_run, command, tmp_path):
    draw = np.random.default_rng(2)
    image = draw.integers(0, 256, (48, 40, 3), np.uint8)
    coarse = np.where(draw.random((48, 40)) < 0.5, draw.integers(0, 12, (48, 40)), 255).astype(np.uint8)
    write_png(tmp_path / "a.png", image)
    write_png(tmp_path / "coarse/a.png", coarse) if (tmp_path / "coarse").mkdir() is None else None
    argv = ["predict", detailer_run, tmp_path / "a.png", "--out", tmp_path / "out", "--coarse", tmp_path / "coarse"]
    masks = {}
    for name in ("detailer", "detailer_composite", "coarse"):
        assert command(*argv, "--result", name, "--confidence").status == 0
        masks[name] = np.asarray(Image.open(tmp_path / "out/a.png"))
    labelled = coarse != 255
    np.testing.assert_array_equal(masks["detailer_composite"], np.where(labelled, coarse, masks["detailer"]))
    np.testing.assert_array_equal(masks["coarse"], coarse)
    assert (masks["detailer"][labelled] != coarse[labelled]).any()
    probabilities = scarce_jax.load(detailer_run, "detailer_composite").probabilities(image, coarse)
    np.testing.assert_array_equal(probabilities.argmax(-1), masks["detailer_composite"])
    np.testing.assert_array_equal(probabilities[labelled].max(-1), 1)


def test_native_ids_are_the_datasets_own(supervised_run, pictures, command, refused, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(supervised_run, run)
    tiny.edit(run / "config.json", native_ids=[7 + 3 * k for k in range(12)])
    argv = ["predict", run, pictures / "plain.png", "--out"]
    assert command(*argv, tmp_path / "ours").status == command(*argv, tmp_path / "native", "--native-ids").status == 0
    ours, native = (np.asarray(Image.open(tmp_path / f"{name}/plain.png")) for name in ("ours", "native"))
    np.testing.assert_array_equal(native, 7 + 3 * ours)
    # Both are shown in the colours of the classes.
    palette = np.array(json.loads((run / "config.json").read_text())["palette"], np.uint8)
    for name in ("ours", "native"):
        shown = Image.open(tmp_path / f"{name}/plain.png")
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), palette[ours])
        assert tuple(shown.getpalette()[3 * 255 : 3 * 256]) == VOID_COLOUR
    tiny.edit(run / "config.json", native_ids=[245 + k for k in range(12)])
    refused(*argv, tmp_path / "wide", "--native-ids", holds=["--native-ids: class id 256", "does not fit"])
    assert not (tmp_path / "wide").exists()


def test_folders_are_predicted_with_their_subfolders_and_keep_their_tree(supervised_run, command, refused, tmp_path):
    photos, draw = tmp_path / "photos", np.random.default_rng(4)
    images = {name: draw.integers(0, 256, (20, 30, 3), np.uint8) for name in ("a.png", "cam1/a.png", "cam2/deep/b.png")}
    for name, image in images.items():
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(photos / name, image)
    # What a Mac leaves on a stick.
    (photos / "cam1/._a.png").write_bytes(b"\0\5\x16\7")
    out, predictor = photos / "masks", scarce_jax.load(supervised_run)
    # The second time the folder of images has the masks of the first.
    for _ in range(2):
        assert "3 images" in command("predict", supervised_run, photos, "--out", out).out
        written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
        assert written == sorted(name.replace(".png", f"{kind}.png") for name in images for kind in ("", "_overlay"))
        for name, image in images.items():
            np.testing.assert_array_equal(np.asarray(Image.open(out / name)), predictor.predict(image))
    for folder in (photos, photos / "cam1"):
        refused("predict", supervised_run, folder, "--out", photos, holds=["the folder of the masks", "choose another"])
    argv = ["predict", supervised_run, photos / "cam1", photos / "a.png", "--out", tmp_path / "other"]
    refused(*argv, holds=["both would write", "give a folder above both"])
    shutil.copy(photos / "a.png", photos / "cam1/a.JPG")
    refused("predict", supervised_run, photos, "--out", out, holds=["equal stems", "beside a.JPG"])


def test_a_split_is_predicted_as_evaluation_servers_want_it(supervised_run, tiny_data, command, refused, tmp_path):
    arguments = ["predict", supervised_run, "--split", "val", "--data-dir", tiny_data, "--out", tmp_path / "masks"]
    text = command(*arguments, "--no-overlays").out
    reader = Reader("scenes", "val", str(tiny_data))
    assert f"{len(reader)} images: masks of result segmenter are in" in text
    # Masks alone, named by the ids of the examples.
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {f"{name}.png" for name in reader.ids}
    predictor = scarce_jax.load(supervised_run)
    written = Image.open(tmp_path / f"masks/{reader.ids[2]}.png")
    assert written.mode == "P"
    np.testing.assert_array_equal(np.asarray(written), predictor.predict(reader.read(2)["image"]))
    assert "found x.png beside it" in refused(*arguments, "x.png")
    assert "no split 'test'" in refused(*[{"val": "test"}.get(word, word) for word in arguments])


def test_a_split_is_predicted_with_its_own_coarse_masks(detailer_run, tiny_data, command, refused, tmp_path):
    data_dir = shutil.copytree(tiny_data, tmp_path / "data")
    of_split = ["--split", "val", "--data-dir", data_dir]
    argv = ["predict", detailer_run, *of_split, "--no-overlays", "--out", tmp_path / "out"]
    command(*argv)
    reader, predictor = Reader("scenes", "val", str(data_dir)), scarce_jax.load(detailer_run)
    example = reader.read(2)
    mask = np.asarray(Image.open(tmp_path / f"out/{reader.ids[2]}.png"))
    np.testing.assert_array_equal(mask, predictor.predict(example["image"], example["coarse"]))
    # A folder of masks comes before those of the dataset.
    (tmp_path / "coarse").mkdir()
    for name, (height, width) in zip(reader.ids, reader.sizes.tolist(), strict=True):
        write_png(tmp_path / f"coarse/{name}.png", np.full((height, width), 255, np.uint8))
    command(*argv, "--coarse", tmp_path / "coarse", "--result", "coarse")
    assert (np.asarray(Image.open(tmp_path / f"out/{reader.ids[2]}.png")) == 255).all()

    directory = load_prepared("scenes", str(data_dir)).directory
    path = index_path(directory, "val")
    index = Index.read(path)
    index.has["coarse"][2] = False
    index.write(path)
    sizes = json.loads((directory / "metadata.json").read_text())["files"]
    tiny.edit(directory / "metadata.json", files=sizes | {path.name: path.stat().st_size})
    message = refused(*argv, holds=[f"example {reader.ids[2]} of scenes/val: has no coarse mask", "--coarse"])
    assert f"1 of {len(reader)} are missing" in message
    finished = command(*argv, "--keep-going")
    assert finished.status == 1 and f"{len(reader) - 1} images" in finished.out and "1 file left out" in finished.err


def test_one_may_go_on_past_what_cannot_be_read(supervised_run, pictures, command, refused, tmp_path):
    (pictures / "cut.jpg").write_bytes((pictures / "photo.JPG").read_bytes()[:700])
    (pictures / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    argv = ["predict", supervised_run, pictures, tmp_path / "gone.png", "--out", tmp_path / "out"]
    refused(*argv)
    assert not (tmp_path / "out").exists()
    finished = command(*argv, "--keep-going")
    assert finished.status == 1 and "6 images" in finished.out and "3 files left out" in finished.err
    for name in ("cut.jpg: cannot be decoded", "phone.heic: not an image file", "gone.png: no such file"):
        assert name in finished.err
    assert len(list((tmp_path / "out").iterdir())) == 12
    none = command("predict", supervised_run, pictures / "cut.jpg", "--out", tmp_path / "none", "--keep-going")
    assert none.status == 1 and "no image was predicted" in none.out and "1 file left out" in none.err
    assert not (tmp_path / "none").exists()
    one = [pictures / "photo.JPG", "--out", tmp_path / "none", "--coarse", tmp_path / "coarse"]
    refused("predict", supervised_run, *one, holds=["reads no coarse masks"])


def test_coarse_masks_are_read_as_prepare_reads_them(detailer_run, command, refused, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(detailer_run, run)
    tiny.edit(run / "config.json", void_ids=[250])
    draw = np.random.default_rng(5)
    coarse = np.where(draw.random((20, 30)) < 0.5, draw.integers(0, 12, (20, 30)), 250).astype(np.uint8)
    for folder in ("images/cam", "coarse/cam"):
        (tmp_path / folder).mkdir(parents=True)
    write_png(tmp_path / "images/cam/a.png", draw.integers(0, 256, (20, 30, 3), np.uint8))
    Image.fromarray(coarse).save(tmp_path / "coarse/cam/a.TIF", format="TIFF")
    rest = [tmp_path / "images", "--out", tmp_path / "out", "--coarse", tmp_path / "coarse", "--result", "coarse"]
    assert command("predict", run, *rest).status == 0
    read = np.where(coarse == 250, 255, coarse)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/cam/a.png")), read)
    refused("predict", detailer_run, *rest, holds=["id 250 is in the mask", "0..11, 255"])
    # In a dataset with ids of its own, they are those of the masks if asked for.
    tiny.edit(run / "config.json", native_ids=[3 * k for k in range(12)])
    refused("predict", run, *rest, holds=["id 250 is in the mask", "Give --native-ids"])
    Image.fromarray(np.where(coarse == 250, 250, 3 * coarse.astype(int)).astype(np.uint8)).save(
        tmp_path / "coarse/cam/a.TIF", format="TIFF"
    )
    assert command("predict", run, *rest, "--native-ids").status == 0
    native = np.where(coarse == 250, 255, 3 * coarse.astype(int))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/cam/a.png")), native)


def test_names_that_are_too_long_are_refused_first(supervised_run, refused, tmp_path):
    name = "ä" * 122
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"{name}.png")
    argv = ["predict", supervised_run, tmp_path / f"{name}.png", "--out", tmp_path / "out"]
    refused(*argv, holds=["would have a name of 256 bytes", "at most 255"])
    refused(
        "predict", supervised_run, tmp_path / f"{name * 3}.png", "--out", tmp_path / "out", holds=["cannot be opened"]
    )
    assert not (tmp_path / "out").exists()


def test_the_predictor(detailer_run):
    image = np.random.default_rng(3).integers(0, 256, (33, 47, 3), np.uint8)
    predictor = scarce_jax.load(detailer_run, "classifier")
    labels, probabilities = predictor.predict(image), predictor.probabilities(image)
    assert labels.dtype == np.uint8 and labels.shape == (33, 47)
    assert probabilities.dtype == np.float32 and probabilities.shape == (33, 47, 12)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(-1), labels)
    assert set(predictor.variables) == {"segmenter"}
    assert set(predictor.variables["segmenter"]) == {"params", "batch_stats"}
    assert predictor.classes[1] == "striped fish" and predictor.config.budget.fine == 8
    for wrong in (image[..., 0], image.astype(np.float32), image[..., :2]):
        with pytest.raises(scarce_jax.InputError, match=r"expected uint8 \[H, W, 3\]"):
            predictor.predict(wrong)


def test_one_path_is_as_good_as_a_list(supervised_run, pictures, tmp_path):
    for number, path in enumerate((pictures / "plain.png", str(pictures / "plain.png"))):
        written = scarce_jax.predict(supervised_run, path, tmp_path / str(number))
        assert written["images"] == 1
        assert sorted(p.name for p in (tmp_path / str(number)).iterdir()) == ["plain.png", "plain_overlay.png"]


def test_a_missing_coarse_mask_names_the_results_that_need_none(detailer_run, pictures, refused, tmp_path):
    argv = ["predict", detailer_run, pictures / "plain.png", "--out", tmp_path / "out"]
    message = refused(*argv, holds=["result detailer: needs a coarse mask"])
    assert message.rstrip().endswith("results that do not: classifier, student_detailed, student_coarse")
    (tmp_path / "coarse").mkdir()
    argv += ["--coarse", tmp_path / "coarse"]
    refused(*argv, holds=[str(tmp_path / "coarse/plain.png"), "no such coarse mask", "1 of 1"])
    for mask, holds in (
        (np.zeros((40, 55), np.uint8), ["coarse mask: found uint8 [40, 55]", "[40, 56]"]),
        (np.full((40, 56), 12, np.uint8), ["id 12 is in the mask", "0..11, 255"]),
        (np.zeros((40, 56, 3), np.uint8), ["RGB", "class id"]),
    ):
        write_png(tmp_path / "coarse/plain.png", mask)
        message = refused(*argv, holds=[str(tmp_path / "coarse/plain.png"), *holds])
        assert message.count("plain.png") == 1
    assert not (tmp_path / "out").exists()


def test_what_predict_cannot_read_is_refused_before_anything_is_written(supervised_run, pictures, refused, tmp_path):
    out = tmp_path / "out"
    argv = ["predict", supervised_run]
    refused(*argv, tmp_path / "none.png", "--out", out, holds=[f"{tmp_path / 'none.png'}: no such file"])
    (tmp_path / "empty").mkdir()
    refused(*argv, tmp_path / "empty", "--out", out, holds=["no image found", ".png"])
    cut = pictures / "cut.jpg"
    cut.write_bytes((pictures / "photo.JPG").read_bytes()[:700])
    assert refused(*argv, pictures, "--out", out, holds=[f"{cut}: cannot be decoded"]).count("cut.jpg") == 1
    cut.unlink()
    shutil.copy(pictures / "plain.png", tmp_path / "plain.png")
    refused(*argv, pictures, tmp_path / "plain.png", "--out", out, holds=["both would write", "rename one of them"])
    shutil.copy(pictures / "plain.png", pictures / "grey_overlay.png")
    refused(*argv, pictures, "--out", out, holds=["both would write", "grey_overlay.png"])
    refused(*argv, pictures / "plain.png", "--out", tmp_path / "plain.png", holds=["is a file; expected a folder"])
    refused(*argv, pictures / "plain.png", "--out", "/proc/out", holds=["/proc/out: cannot be read or written"])
    refused(*argv, pictures / "plain.png", "--out", out, "--result", "", holds=["result '': this run has segmenter"])
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "empty", "plain.png"}
    before = (pictures / "plain.png").read_bytes()
    refused(*argv, pictures / "plain.png", "--out", pictures, holds=["is an input and would be lost"])
    assert (pictures / "plain.png").read_bytes() == before


def test_what_is_no_run_or_no_result_is_refused(detailer_run, tiny_data, pictures, refused, command, tmp_path):
    image = pictures / "plain.png"
    for words in (["evaluate", tmp_path], ["predict", tmp_path, image, "--out", tmp_path / "out"]):
        refused(*words, holds=[f"{tmp_path}: not a run folder"])
    names = "detailer, coarse, detailer_composite, classifier, classifier_composite, student_detailed, student_coarse"
    refused("evaluate", detailer_run, "--result", "detialer", holds=["'detialer'", names])
    refused("evaluate", detailer_run, "--data-dir", tiny_data, "--split", "dev", holds=["no split 'dev'", "train"])
    line = f"scarce-jax prepare scenes --data-dir {tmp_path}\n"
    refused("evaluate", detailer_run, "--data-dir", tmp_path, holds=["not prepared", line])
    with pytest.raises(scarce_jax.InputError, match="this run has detailer, coarse"):
        scarce_jax.load(detailer_run, "pnet")


def test_a_stage_that_is_not_finished_is_named(detailer_run, refused, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(detailer_run, run)
    (run / "classifier/DONE").unlink()
    refused("evaluate", run, "--result", "classifier", holds=["stage classifier", "is not finished"])
    for number, advice in ((1, "an older scarce-jax made it"), (3, "a newer scarce-jax made it")):
        tiny.edit(run / "config.json", format=number)
        refused("evaluate", run, holds=[f"{run}/config.json: format {number}, expected 2; {advice}"])
    (run / "config.json").write_text("{")
    refused("evaluate", run, holds=[str(run / "config.json")])
    (run / "manifest.json").unlink()
    shutil.copy(detailer_run / "config.json", run / "config.json")
    refused("evaluate", run, holds=[str(run / "manifest.json")])
