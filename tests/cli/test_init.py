"""`init`: folders as people have them, the files that it writes, and runs of these."""

import contextlib
import json
import os
import shlex
import types

import jax
import numpy as np
import pytest
from PIL import Image

from scarce_jax.cli.common import load_config
from scarce_jax.data.builders.formats import Options
from scarce_jax.proposal import look, plan
from scarce_jax.proposal.classes import propose_classes
from scarce_jax.proposal.config import config_text
from tests import tiny
from tests.data.formats import exports

NAMES = [f"n{k}" for k in range(6)]
SIZE = (48, 64)


def photo(path, size=SIZE):
    seed = sum(map(ord, str(path)))
    exports.save(path, np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def mask(path, ids=(0, 1, 2), size=SIZE):
    drawn = np.full(size, ids[0])
    for k, value in enumerate(ids):
        drawn[8 * k : 8 * k + 8, 8:40] = value
    exports.save(path, drawn.astype(np.uint8))


def make(root, masks=6, images="images", where="masks", **kind):
    for k, name in enumerate(NAMES):
        photo(root / images / f"{name}.png")
        if k < masks:
            mask(root / where / f"{name}.png", **kind)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_next(command, found, *data):
    """Runs the commands that `init` printed."""
    prepare, train = [shlex.split(line)[2:] for line in found.out.splitlines() if line.startswith("next: ")]
    assert command(*prepare, *data).status == 0
    return train


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((0, 1, 2), {"classes": ["background", "class 1", "class 2"], "background": "background"}),
        ((0, 1, 255), {"classes": ["background", "class 1"], "background": "background"}),
        ((1, 2), {"ids": {"1": "class 1", "2": "class 2"}, "background": None}),
        ((0, 7, 26), {"ids": {"0": "background", "7": "class 7", "26": "class 26"}, "background": "background"}),
        ((0, 255), {"ids": {"0": "background", "255": "class 1"}, "background": "background"}),
    ],
)
def test_classes_are_those_of_the_ids_in_the_masks(ids, expected, tmp_path):
    make(tmp_path / "pets", ids=ids)
    seen = look(tmp_path / "pets", Options())
    assert seen.classes == expected and seen.report.clean and seen.options.val == "0.2"


def test_colours_are_classes_by_their_area(tmp_path):
    make(tmp_path / "pets")
    colours = np.array([(0, 0, 0), (255, 0, 0), (224, 224, 192)], np.uint8)
    for path in (tmp_path / "pets/masks").iterdir():
        Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)
    assert look(tmp_path / "pets", Options()).classes == {
        "classes": ["background", "class 1"],
        "palette": [[0, 0, 0], [255, 0, 0]],
        "background": "background",
        "ignore": [[224, 224, 192]],
    }


def test_a_folder_becomes_a_run_by_the_printed_commands(command, tmp_path):
    source = tmp_path / "My Köt & Höns (2)"
    make(source)
    found = command("init", source.name)
    assert found.status == 0 and (tmp_path / "my_k_t_h_ns_2.py").is_file()
    data = ["--data-dir", tmp_path / "data"]
    train = run_next(command, found, *data)
    small = ["--segmenter.net", "tiny", "--segmenter.steps", 2, "--segmenter.eval-every", 2, "--segmenter.batch", 8]
    with tiny.little_optimised():
        trained = command(*train, *data, *small, "--workdir", "run")
    assert trained.status == 0 and "segmenter" in trained.out
    before = {path: path.read_bytes() for path in (source / "classes.json", tmp_path / "my_k_t_h_ns_2.py")}
    kept = command("init", source.name)
    assert kept.status == 1 and "my_k_t_h_ns_2.py: exists, and is kept" in kept.err
    other = command("init", source.name, "--out", "other.py")
    assert other.status == 0 and "wrote other.py" in other.out and "wrote My" not in other.out
    assert {path: path.read_bytes() for path in before} == before


def labels(root, kind):
    """A folder whose labels suit a method."""
    if kind == "detailer":
        for split in ("train", "val"):
            make(root / split)
            make(root / split, where="coarse", ids=(255, 1, 2))
            for path in (root / split / "masks").iterdir():
                mask(path, ids=(0, 1, 2))
    elif kind == "supervised":
        make(root, masks=5)
    elif kind == "auxiliary":
        make(root, masks=3)
    else:
        make(root / "train", masks=3)
        (root / "train/tags.csv").write_text("".join(f"{name},cat;dog\n" for name in NAMES[3:]))
        exports.classes_json(root)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("kind", ["supervised", "detailer", "auxiliary", "decoupled"])
def test_the_method_suits_the_labels_and_its_config_loads(kind, device, tmp_path):
    labels(tmp_path / "pets", kind)
    seen = look(tmp_path / "pets", Options())
    chosen = plan(seen.layout, seen.sizes, device, 3)
    assert chosen.method == kind and chosen.measured and chosen.size == (64, 80)
    (tmp_path / "pets.py").write_text(config_text(chosen, "folder/pets", "pets.py"))
    config = load_config(tmp_path / "pets.py")
    assert (config.dataset, config.budget.fine, config.eval_split) == ("folder/pets", "all", "val")
    stages = {"supervised": "segmenter", "detailer": "detailer", "auxiliary": "semi", "decoupled": "classifier"}
    assert getattr(config, stages[kind]).batch % 3 == 0
    if kind == "auxiliary":
        assert config.semi.labelled_batch % 3 == 0 and config.semi.batch == 2 * config.semi.labelled_batch


def missing():
    raise RuntimeError("Unable to initialize backend 'cuda'")


@pytest.mark.parametrize(
    ("devices", "flags", "batch"),
    [
        (lambda: [types.SimpleNamespace(platform="gpu")] * 3, [], 9),
        (lambda: [types.SimpleNamespace(platform="gpu")] * 3, ["--device", "cpu"], 4),
        (missing, [], 4),
        (missing, ["--device", "gpu"], 8),
    ],
)
def test_the_batch_suits_the_devices(devices, flags, batch, command, tmp_path, monkeypatch):
    make(tmp_path / "pets")
    monkeypatch.setattr(jax, "devices", devices)
    found = command("init", "pets", *flags)
    assert found.status == 0 and load_config("pets.py").segmenter.batch == batch


@pytest.mark.parametrize("kind", ["detailer", "auxiliary", "decoupled"])
def test_these_configs_can_be_trained(kind, command, tmp_path):
    labels(tmp_path / "pets", kind)
    found = command("init", "pets")
    assert f"Method: {kind}" in found.out
    data = ["--data-dir", tmp_path / "data"]
    planned = command(*run_next(command, found, *data), *data, "--dry-run")
    assert planned.status == 0 and "folder/pets/train" in planned.out, planned.err


def test_tags_alone_are_for_a_shipped_config(command, tmp_path):
    make(tmp_path / "pets/train", masks=0)
    (tmp_path / "pets/train/tags.csv").write_text("".join(f"{name},cat;dog\n" for name in NAMES))
    found = command("init", "pets")
    assert found.status == 0 and not (tmp_path / "pets.py").exists()
    assert json.loads((tmp_path / "pets/classes.json").read_text())["classes"] == ["background", "cat", "dog"]
    assert "next: scarce-jax train three_step_scenes --dataset folder/pets --eval-split None" in found.out


def test_sizes_keep_the_proportions(tmp_path):
    make(tmp_path / "pets")
    seen = look(tmp_path / "pets", Options())
    for (height, width), expected in (((3000, 4000), (176, 240)), ((1080, 1920), (144, 256)), ((900, 900), (192, 192))):
        chosen = plan(seen.layout, {(height, width): 6}, "cpu")
        assert (chosen.size, chosen.pad) == (expected, False)
        assert all(crop <= side for crop, side in zip(chosen.crop, chosen.size, strict=True))
    chosen = plan(seen.layout, {(600, 800): 3, (800, 600): 3}, "gpu")
    assert (chosen.size, chosen.crop, chosen.pad) == ((480, 480), (384, 384), True)
    assert 'fit="pad"' in config_text(chosen, "folder/pets", "pets.py")


def test_two_folders_of_any_names(command, tmp_path):
    make(tmp_path / "pets", images="my photographs", where="drawn")
    found = command("init", "pets")
    assert found.status == 0
    train = run_next(command, found, "--data-dir", tmp_path / "data")
    assert train == ["train", "pets.py"]


def test_one_image_trains_without_a_measurement(command, tmp_path):
    photo(tmp_path / "pets/images/a.png")
    mask(tmp_path / "pets/masks/a.png")
    assert command("init", "pets").status == 0
    assert load_config(tmp_path / "pets.py").eval_split is None


@pytest.mark.parametrize("name", ["cvat", "labelme", "label_studio", "roboflow", "coco", "supervisely", "voc"])
def test_an_export_brings_its_classes(name, command, tmp_path):
    with contextlib.suppress(AttributeError):
        getattr(exports, name)(tmp_path / "export")
    if name == "voc":
        (tmp_path / "export/names.txt").unlink()
    before = {path for path in (tmp_path / "export").rglob("*")}
    found = command("init", "export")
    assert found.status == 0 and load_config(tmp_path / "export.py").dataset == "folder/export"
    added = {path.name for path in set((tmp_path / "export").rglob("*")) - before}
    assert added == ({"classes.json"} if name == "voc" else set())


def test_a_dry_run_writes_nothing(command, tmp_path):
    make(tmp_path / "pets")
    before = sorted(tmp_path.rglob("*"))
    found = command("init", "pets", "--dry-run")
    assert found.status == 0 and "pets.py would be:" in found.out and "SegmenterStage" in found.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_the_classes_of_a_folder_that_cannot_be_written_stand_beside_the_config(command, tmp_path):
    make(tmp_path / "pets")
    (tmp_path / "pets").chmod(0o555)
    found = command("init", "pets")
    assert found.status == 0 and (tmp_path / "pets_classes.json").is_file()
    run_next(command, found, "--data-dir", tmp_path / "data")


def beside(root):
    for name in NAMES:
        photo(root / f"{name}.png")
        mask(root / f"{name}_mask.png")


def loose(root):
    make(root, images=".")


def masks_of_test(root):
    make(root / "train", masks=0)
    make(root / "test")


def capital(root):
    make(root / "Train", images="Images", where="Masks")


def by_day(root):
    for k in range(9):
        photo(root / f"day {k}/{k}.png", (8, 8))


def jpeg(root):
    make(root)
    for path in list((root / "masks").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()


def blended(root):
    make(root)
    for path in (root / "masks").iterdir():
        image = Image.open(path).point(lambda value: 100 * value)
        image.resize((320, 240), Image.Resampling.BICUBIC).save(path)
        photo(root / "images" / path.name, (240, 320))


def tagged(root):
    labels(root, "decoupled")
    (root / "classes.json").unlink()


def coarse_alone(root):
    make(root / "train", where="coarse")


@pytest.mark.parametrize(
    ("prepare", "holds"),
    [
        (lambda root: None, "missing"),
        (lambda root: root.write_text("x"), "a file, expected a folder"),
        (lambda root: root.mkdir(), "no photograph; expected photographs in a folder `images`"),
        (lambda root: make(root, masks=0), "no mask; expected masks of at least a few"),
        (lambda root: make(root / "train", masks=0), "no mask; expected masks of at least a few"),
        (lambda root: make(root / "cats"), "expected train"),
        (beside, "move the masks to a folder of their own"),
        (loose, "move them to pets/images"),
        (by_day, "photographs in day 0, day 1, day 2, day 3, day 4, ..., too many to tell masks; move them to"),
        (jpeg, "the mask is a JPEG file"),
        (blended, "blended-mask"),
        (tagged, "tags.csv names cat, dog"),
        (coarse_alone, "no method learns from coarse masks alone"),
        (masks_of_test, "no photograph of the split train has a mask"),
        (capital, "rename each such folder, pets/Train/Images to images"),
    ],
)
def test_what_no_config_can_be_made_of_is_refused(prepare, holds, command, tmp_path):
    prepare(tmp_path / "pets")
    before = sorted(tmp_path.rglob("*"))
    found = command("init", "pets")
    assert found.status == 1 and holds in found.err and "Traceback" not in found.err
    (message,) = (line for line in found.err.splitlines() if line.startswith("scarce-jax: "))
    assert message.startswith("scarce-jax: pets")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_must_be_mended_is_listed_and_nothing_is_written(command, tmp_path):
    make(tmp_path / "pets")
    mask(tmp_path / "pets/masks/n1.png", size=(24, 32))
    (tmp_path / "pets/images/n2.png").write_bytes((tmp_path / "pets/images/n2.png").read_bytes()[:300])
    before = sorted(tmp_path.rglob("*"))
    found = command("init", "pets")
    assert found.status == 1 and "size-mismatch" in found.out and "truncated-file" in found.out
    assert found.out.endswith("\nnext: scarce-jax init pets\n") and sorted(tmp_path.rglob("*")) == before


def test_no_mask_is_no_class():
    assert propose_classes([], "pets") is None


def test_it_can_prepare_the_dataset_at_once(command, tmp_path):
    make(tmp_path / "photos")
    found = command("init", "photos", "--prepare", "--out", "mine.py", "--data-dir", "data")
    assert found.status == 0 and "rename the classes" not in found.out
    assert found.out.splitlines()[-1] == "next: scarce-jax train mine.py --data-dir data"
    assert command("check", "folder/photos", "--data-dir", "data").status == 0


def test_prepare_keeps_the_files_that_init_wrote_before(command, tmp_path):
    make(tmp_path / "photos")
    assert command("init", "photos").status == 0
    classes, config = tmp_path / "photos" / "classes.json", tmp_path / "photos.py"
    classes.write_text(classes.read_text().replace("class 1", "cell"))
    config.write_text("# mine\n" + config.read_text())
    found = command("init", "photos", "--prepare", "--data-dir", "data")
    assert found.status == 0 and "photos.py: kept as it is" in found.out and " cell " in found.out
    assert config.read_text().startswith("# mine")
