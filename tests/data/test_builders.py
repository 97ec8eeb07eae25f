import fcntl
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from scarce_jax.data import builders
from scarce_jax.data.builders import base, build, default_data_dir, is_prepared, load_info, load_prepared, prepare
from scarce_jax.data.builders.camvid import Camvid
from scarce_jax.data.builders.files import Example, encode_image, encode_mask
from scarce_jax.data.builders.scenes import Scenes
from scarce_jax.data.datasets import CAMVID
from scarce_jax.data.images import read_encoded
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError

HEIGHT, WIDTH = 40, 56
IDS = {"train": ["b_02", "a_01", "c_03"], "val": ["d_04", "e_05"]}


def _mask(seed: int) -> np.ndarray:
    mask = np.full((HEIGHT, WIDTH), seed % 11, np.uint8)
    mask[8:32, 10:40] = (seed + 3) % 11
    mask[:4] = 11
    return mask


def _image(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def camvid(tmp_path) -> pathlib.Path:
    """A folder in CamVid's layout: 3 train and 2 val examples, JPEG images, 8-bit masks, no test split."""
    root = tmp_path / "camvid_files"
    for split, ids in IDS.items():
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for seed, name in enumerate(ids):
            (root / split / f"{name}.jpg").write_bytes(encode_image(_image(seed)))
            (root / f"{split}annot" / f"{name}.png").write_bytes(encode_mask(_mask(seed)))
        lines = [f"{split}/{name}.jpg {split}annot/{name}.png\n" for name in ids]
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def _read(directory, split: str, **options) -> list[dict]:
    return list(tfds.builder_from_directory(directory).as_data_source(split, **options))


def _left(data_dir: pathlib.Path) -> list[pathlib.Path]:
    return list(data_dir.rglob("*")) if data_dir.exists() else []


def test_prepared_examples_have_the_schema_and_keep_the_order(tmp_path, camvid):
    prepared = prepare("camvid", tmp_path / "data", camvid)
    for split, ids in IDS.items():
        examples = _read(prepared.directory, split)
        assert [e["id"].decode() for e in examples] == ids
        for seed, example in enumerate(examples):
            fine, coarse = example["fine"], example["coarse"]
            assert set(example) == {"image", "fine", "coarse", "tags", "id"}
            assert example["image"].shape == (HEIGHT, WIDTH, 3) and example["image"].dtype == np.uint8
            assert fine.shape == coarse.shape == (HEIGHT, WIDTH, 1)
            assert fine.dtype == coarse.dtype == np.uint8
            expected = _mask(seed)
            expected[expected == 11] = 255
            np.testing.assert_array_equal(fine[..., 0], expected)
            assert (coarse[fine == 255] == 255).all()
            assert example["tags"].dtype == np.uint8
            np.testing.assert_array_equal(np.flatnonzero(example["tags"]), np.unique(expected[expected != 255]))


def test_images_are_kept_byte_for_byte(tmp_path, camvid):
    prepared = prepare("camvid", tmp_path / "data", camvid)
    raw = _read(prepared.directory, "train", decoders={"image": tfds.decode.SkipDecoding()})
    for example in raw:
        assert example["image"] == (camvid / "train" / f"{example['id'].decode()}.jpg").read_bytes()


def test_summary_and_info_need_the_directory_alone(tmp_path, camvid):
    prepared = prepare("camvid", tmp_path / "data", camvid)
    shutil.rmtree(camvid)
    info = load_info("camvid", tmp_path / "data")
    assert info == prepared.info
    assert info.splits == {"train": 3, "val": 2}
    assert (info.classes, info.palette, info.background) == (CAMVID.classes, CAMVID.palette, None)
    assert prepared == load_prepared("camvid", tmp_path / "data")
    assert prepared.version == "1.0.0"
    assert prepared.directory == builders.dataset_dir("camvid", tmp_path / "data")
    assert prepared.bytes == sum(p.stat().st_size for p in prepared.directory.iterdir())
    assert set(prepared.coarse) == {"train", "val"}
    assert 0 < prepared.coarse["train"].coverage < 1
    text = str(prepared)
    for part in ("train 3, val 2", "Sky, Building", "the fine masks", "simulated", "precision", "mIoU"):
        assert part in text


def test_absolute_paths_of_the_tutorials_lists_are_found(tmp_path, camvid):
    for split, ids in IDS.items():
        lines = [f"/SegNet/CamVid/{split}/{i}.jpg /SegNet/CamVid/{split}annot/{i}.png\n" for i in ids]
        (camvid / f"{split}.txt").write_text("".join(lines) + "\n")
    assert prepare("camvid", tmp_path / "data", camvid).info.splits == {"train": 3, "val": 2}


def test_only_the_splits_of_the_source_are_made(tmp_path, camvid):
    (camvid / "train.txt").rename(camvid / "test.txt")
    assert prepare("camvid", tmp_path / "data", camvid).info.splits == {"val": 2, "test": 3}


def test_preparing_again_finds_it_built_and_needs_no_source(tmp_path, camvid):
    first = prepare("camvid", tmp_path / "data", camvid)
    times = {p: p.stat().st_mtime_ns for p in first.directory.iterdir()}
    assert prepare("camvid", tmp_path / "data") == first
    assert {p: p.stat().st_mtime_ns for p in first.directory.iterdir()} == times


def test_coarse_masks_and_order_are_the_same_in_every_build(tmp_path, camvid):
    one, two = (_read(prepare("camvid", tmp_path / d, camvid).directory, "train") for d in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a["id"] == b["id"]
        np.testing.assert_array_equal(a["coarse"], b["coarse"])


def test_a_split_larger_than_a_shard_reads_back_whole(tmp_path, camvid, monkeypatch):
    monkeypatch.setattr(Camvid, "SHARD_BYTES", 3000)
    directory = prepare("camvid", tmp_path / "data", camvid).directory
    assert len(list(directory.glob("camvid-train*-of-00003"))) == 3
    assert [e["id"].decode() for e in _read(directory, "train")] == IDS["train"]
    assert is_prepared("camvid", tmp_path / "data")


# What is wrong in a source, and what the message must name.


def _missing_mask(root):
    (root / "valannot/e_05.png").unlink()
    return ["valannot/e_05.png", "e_05", "val.txt, line 2"]


def _missing_image(root):
    (root / "train/a_01.jpg").unlink()
    return ["train/a_01.jpg", "a_01", "image"]


def _cut_image(root):
    path = root / "train/a_01.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return ["train/a_01.jpg", "a_01", "cannot be decoded"]


def _empty_image(root):
    (root / "train/c_03.jpg").write_bytes(b"")
    return ["train/c_03.jpg", "c_03", "empty"]


def _text_for_an_image(root):
    (root / "train/c_03.jpg").write_text("<html>404</html>")
    return ["train/c_03.jpg", "c_03", "cannot be decoded"]


def _cut_mask(root):
    path = root / "trainannot/a_01.png"
    path.write_bytes(path.read_bytes()[:60])
    return ["trainannot/a_01.png", "a_01", "mask"]


def _colour_mask(root):
    Image.fromarray(_image(0)).save(root / "trainannot/a_01.png")
    return ["trainannot/a_01.png", "a_01", "RGB", "one class id per pixel"]


def _lossy_mask(root):
    cv2.imwrite(str(root / "trainannot/a_01.jpg"), _mask(0))
    (root / "trainannot/a_01.jpg").rename(root / "trainannot/a_01.png")
    return ["trainannot/a_01.png", "a_01", "JPEG"]


def _unknown_id(root):
    mask = _mask(1)
    mask[5, 5:8] = 40
    (root / "trainannot/a_01.png").write_bytes(encode_mask(mask))
    return ["trainannot/a_01.png", "a_01", "id 40", "3 pixels", "0..11, 255"]


def _other_size(root):
    (root / "trainannot/a_01.png").write_bytes(encode_mask(_mask(1)[:-2]))
    return ["trainannot/a_01.png", "a_01", "56x38", "56x40"]


def _bad_line(root):
    (root / "val.txt").write_text("val/d_04.jpg\n")
    return ["val.txt, line 1", "val/d_04.jpg"]


def _same_id_twice(root):
    line = "train/a_01.jpg trainannot/a_01.png\n"
    (root / "train.txt").write_text(line + line)
    return ["a_01", "twice", "'train'"]


def _empty_list(root):
    (root / "val.txt").write_text("\n")
    return ["'val'", "no images"]


def _no_lists(root):
    for path in root.glob("*.txt"):
        path.unlink()
    return [str(root), "train.txt"]


def _no_folder(root):
    shutil.rmtree(root)
    return [str(root), "missing", "train.txt"]


@pytest.mark.parametrize(
    "damage",
    [
        _missing_mask, _missing_image, _cut_image, _empty_image, _text_for_an_image, _cut_mask, _colour_mask,
        _lossy_mask, _unknown_id, _other_size, _bad_line, _same_id_twice, _empty_list, _no_lists, _no_folder,
    ],
)  # fmt: skip
def test_a_wrong_source_is_named_and_nothing_half_built_is_left(tmp_path, camvid, damage):
    parts = damage(camvid)
    with pytest.raises(InputError) as caught:
        prepare("camvid", tmp_path / "deep" / "data", camvid)
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "deep").exists()


def test_an_error_leaves_other_datasets_alone(tmp_path, camvid, monkeypatch):
    monkeypatch.setattr(Scenes, "SIZES", {"train": 1})
    prepare("scenes", tmp_path / "data")
    before = _left(tmp_path / "data")
    _cut_image(camvid)
    with pytest.raises(InputError):
        prepare("camvid", tmp_path / "data", camvid)
    assert _left(tmp_path / "data") == before


def test_palette_masks_are_read_as_their_indices(tmp_path, camvid):
    for name in IDS["train"]:
        path = camvid / f"trainannot/{name}.png"
        mask = Image.open(path)
        mask.load()
        mask = Image.fromarray(np.asarray(mask)).convert("P")
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        mask.save(path)
    fine = _read(prepare("camvid", tmp_path / "data", camvid).directory, "train")[0]["fine"][..., 0]
    np.testing.assert_array_equal(fine, np.where(_mask(0) == 11, 255, _mask(0)))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_four_bit_grey_masks_are_read_as_ids_and_not_as_brightness(tmp_path, camvid):
    mask = _mask(0)
    rows = b"".join(b"\0" + bytes((row[::2] << 4 | row[1::2]).tolist()) for row in mask)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 4, 0, 0, 0, 0)
    chunks = [_png_chunk(b"IHDR", header), _png_chunk(b"IDAT", zlib.compress(rows)), _png_chunk(b"IEND", b"")]
    (camvid / "trainannot/b_02.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    fine = _read(prepare("camvid", tmp_path / "data", camvid).directory, "train")[0]["fine"][..., 0]
    np.testing.assert_array_equal(fine, np.where(mask == 11, 255, mask))


@pytest.mark.parametrize("kind", ["grey", "alpha", "palette", "sixteen", "rotated", "bmp"])
def test_unusual_images_become_upright_rgb(tmp_path, kind):
    rgb, path = Image.fromarray(_image(0)), tmp_path / ("x.bmp" if kind == "bmp" else "x.png")
    expected = np.asarray(rgb)
    if kind == "grey":
        rgb.convert("L").save(path)
        expected = np.repeat(np.asarray(rgb.convert("L"))[..., None], 3, 2)
    elif kind == "alpha":
        rgb.convert("RGBA").save(path)
    elif kind == "palette":
        rgb.quantize(64).save(path)
        expected = np.asarray(rgb.quantize(64).convert("RGB"))
    elif kind == "sixteen":
        grey = np.asarray(rgb.convert("L"))
        Image.fromarray(grey.astype(np.uint16) << 8).save(path)
        expected = np.repeat(grey[..., None], 3, 2)
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        rgb.save(path, exif=exif)
        expected = np.rot90(expected, -1)
    else:
        rgb.save(path)
    data, size = read_encoded(path)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.shape == expected.shape and decoded.dtype == np.uint8
    assert size == expected.shape[:2]
    np.testing.assert_array_equal(decoded[..., ::-1], expected)


# Names, folders and messages.


def test_missing_dataset_names_the_command_that_prepares_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
    with pytest.raises(InputError, match=r"run: scarce-jax prepare camvid --source DIR$"):
        load_info("camvid")
    with pytest.raises(InputError, match=r"run: scarce-jax prepare scenes$"):
        load_info("scenes", tmp_path / "default")
    other = tmp_path / "other place"
    with pytest.raises(InputError) as caught:
        load_info("camvid", other)
    assert str(caught.value).endswith(f"run: scarce-jax prepare camvid --source DIR --data-dir '{other}'")
    assert not is_prepared("camvid", other)


def test_data_dir_defaults_to_the_environment_then_home(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/somewhere/else")
    assert default_data_dir() == pathlib.Path("/somewhere/else")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", "/home/nobody")
    assert default_data_dir() == pathlib.Path("/home/nobody/tensorflow_datasets")


def test_unknown_dataset_names_the_nearest_and_all(tmp_path):
    with pytest.raises(InputError, match="'camvit'; did you mean camvid.*camvid, .*scenes"):
        prepare("camvit", tmp_path)
    with pytest.raises(InputError, match="'../x'"):
        is_prepared("../x", tmp_path)


def test_source_is_asked_for_where_needed_and_refused_where_not(tmp_path):
    with pytest.raises(InputError, match="camvid needs --source DIR.*train.txt"):
        prepare("camvid", tmp_path / "data")
    with pytest.raises(InputError, match="scenes is generated"):
        prepare("scenes", tmp_path / "data", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file, expected a folder"):
        prepare("camvid", tmp_path / "data", tmp_path / "file")
    assert _left(tmp_path / "data") == []


def test_data_dir_that_cannot_be_written_is_named(tmp_path, camvid):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="data.*cannot be written"):
        prepare("camvid", tmp_path / "data", camvid)


# Builds that were cut short.


def test_remains_of_a_killed_build_are_removed(tmp_path, camvid):
    folder = tmp_path / "data" / "camvid"
    (folder / "incomplete.AB12CD_1.0.0").mkdir(parents=True)
    (folder / "incomplete.AB12CD_1.0.0" / "train-0").write_bytes(b"x")
    (folder / "1.0.0").mkdir()
    (folder / "1.0.0" / "camvid-train.array_record-00000-of-00001").write_bytes(b"x")
    assert not is_prepared("camvid", tmp_path / "data")
    prepare("camvid", tmp_path / "data", camvid)
    assert [p.name for p in folder.iterdir()] == ["1.0.0"]
    assert not list((tmp_path / "data").glob(".*"))


def test_what_a_killed_rebuild_left_goes_unless_one_is_at_work(tmp_path, camvid):
    data = tmp_path / "data"
    prepare("camvid", data, camvid)
    (data / ".camvid.abc123").mkdir()
    (data / ".camvid.abc123" / "train-0").write_bytes(b"x")
    (data / ".camvid.lock").touch()
    with (data / ".camvid.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        prepare("camvid", data)
        assert (data / ".camvid.abc123" / "train-0").exists()
    prepare("camvid", data)
    assert [path.name for path in data.iterdir()] == ["camvid"]


@pytest.mark.parametrize("damage", ["shard gone", "shard cut", "metadata cut", "metadata gone", "info gone"])
def test_a_damaged_dataset_is_named_and_built_anew(tmp_path, camvid, damage):
    directory = prepare("camvid", tmp_path / "data", camvid).directory
    shard, metadata = next(directory.glob("camvid-train*")), directory / "metadata.json"
    if damage == "shard gone":
        shard.unlink()
    elif damage == "shard cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "metadata cut":
        metadata.write_text(metadata.read_text()[:30])
    elif damage == "metadata gone":
        metadata.unlink()
    else:
        (directory / "dataset_info.json").unlink()
    assert not is_prepared("camvid", tmp_path / "data")
    named = {"metadata cut": metadata, "metadata gone": metadata, "info gone": directory / "dataset_info.json"}.get(
        damage, shard
    )
    with pytest.raises(InputError, match=f"{named}: .*run: scarce-jax prepare camvid --source DIR --again"):
        load_info("camvid", tmp_path / "data")
    prepare("camvid", tmp_path / "data", camvid)
    assert len(_read(directory, "train")) == 3


def test_a_dataset_of_another_maker_is_not_deleted(tmp_path, camvid):
    folder = tmp_path / "data" / "camvid" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    for metadata in (None, '{"url": "https://example.org"}'):
        if metadata is not None:
            (folder / "metadata.json").write_text(metadata)
        for call in (prepare, is_prepared, load_info):
            with pytest.raises(InputError, match="another tfds dataset of this name.*choose another --data-dir"):
                call("camvid", tmp_path / "data")
        with pytest.raises(InputError, match="another tfds dataset of this name"):
            prepare("camvid", tmp_path / "data", camvid, again=True)
    assert (folder / "dataset_info.json").exists()


def test_a_build_killed_half_way_does_no_harm(tmp_path):
    script = (
        "import sys\n"
        "from scarce_jax.data.builders import prepare\n"
        "from scarce_jax.data.builders.scenes import Scenes\n"
        "Scenes.SIZES = {'train': int(sys.argv[1])}\n"
        "prepare('scenes', sys.argv[2])\n"
    )
    data = tmp_path / "data"
    child = subprocess.Popen([sys.executable, "-c", script, "100000", str(data)])
    try:
        deadline = time.monotonic() + 60
        while not list(data.glob("**/scenes/incomplete.*/train-0")):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not is_prepared("scenes", data)
    done = subprocess.run([sys.executable, "-c", script, "2", str(data)], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
    assert load_info("scenes", data).splits == {"train": 2}
    assert [p.name for p in data.iterdir()] == ["scenes"]
    assert [p.name for p in (data / "scenes").iterdir()] == ["1.0.0"]


def test_neither_tensorflow_nor_jax_is_imported_and_nothing_is_printed(tmp_path, camvid):
    script = (
        "import sys, tensorflow_datasets as tfds\n"
        "from scarce_jax.data.builders import prepare\n"
        "p = prepare('camvid', sys.argv[1], sys.argv[2])\n"
        "list(tfds.builder_from_directory(p.directory).as_data_source('train'))\n"
        "assert not {'tensorflow', 'jax', 'apache_beam'} & set(sys.modules)\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data"), str(camvid)],
        capture_output=True, text=True, env={**os.environ, "TMPDIR": str(scratch)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert _left(scratch) == []


# What the base does for builders of other datasets.

TINY = DatasetInfo(
    name="tiny",
    classes=("none", "a", "b"),
    palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    background=0,
    splits={},
)


@pytest.fixture
def tiny(monkeypatch):
    """A generated dataset whose examples a test sets; counts its builds."""

    class Tiny(base.SegmentationBuilder):
        VERSION = tfds.core.Version("2.1.0")
        examples: list[Example] = []
        builds = 0

        def describe(self):
            return TINY

        def split_examples(self):
            type(self).builds += 1
            time.sleep(0.2)
            return {"train": iter(self.examples)}

    monkeypatch.setitem(builders.BUILDERS, "tiny", Tiny)
    return Tiny


def _blank(name: str, fine: np.ndarray, **fields) -> Example:
    return Example(id=name, image=encode_image(np.zeros((*fine.shape, 3), np.uint8)), fine=fine, **fields)


def test_coarse_masks_and_tags_of_the_source_are_kept(tmp_path, tiny):
    fine = np.zeros((16, 16), np.uint8)
    fine[:8] = 1
    coarse = np.full_like(fine, 255)
    coarse[:4] = 2
    tags = np.array([0, 1, 1], np.uint8)
    tiny.examples = [_blank("x", fine, coarse=coarse, tags=tags), _blank("y", fine)]
    prepared = prepare("tiny", tmp_path)
    given, simulated = _read(prepared.directory, "train")
    np.testing.assert_array_equal(given["coarse"][..., 0], coarse)
    np.testing.assert_array_equal(given["tags"], tags)
    np.testing.assert_array_equal(simulated["tags"], [0, 1, 0])  # the background has no tag
    assert prepared.version == "2.1.0"
    assert prepared.info.background == 0


def test_examples_without_labels_are_kept_and_measure_nothing(tmp_path, tiny):
    tiny.examples = [_blank("x", np.full((8, 8), 255, np.uint8), tags=np.array([0, 0, 1], np.uint8))]
    prepared = prepare("tiny", tmp_path)
    (example,) = _read(prepared.directory, "train")
    assert (example["coarse"] == 255).all()
    assert prepared.coarse["train"].miou is None
    assert "train: coverage -" in str(prepared)


def test_preparing_at_the_same_time_builds_once(tmp_path, tiny):
    tiny.examples = [_blank("x", np.zeros((8, 8), np.uint8))]
    results = []
    threads = [threading.Thread(target=lambda: results.append(prepare("tiny", tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tiny.builds == 1
    assert len(results) == 3 and results[0] == results[1] == results[2]
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


def test_a_lock_that_its_last_holder_deletes_is_taken_again(tmp_path, monkeypatch):
    path, locked = tmp_path / ".tiny.lock", []

    def lock_and_delete(handle, how, lock=fcntl.flock):
        lock(handle, how)
        locked.append(how)
        if len(locked) == 1:
            path.unlink()

    monkeypatch.setattr(build.fcntl, "flock", lock_and_delete)
    # The file may be deleted right after it was seen.
    monkeypatch.setattr(pathlib.Path, "exists", lambda path: True)
    with build._only_one(path):
        assert path.is_file()
    assert len(locked) == 2 and not path.is_file()


def test_our_names_do_not_enter_the_registry_of_tfds():
    assert not {"camvid", "scenes", "segmentation_builder"} & set(tfds.list_builders(with_community_datasets=False))
