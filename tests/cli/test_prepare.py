"""`prepare` through the command line: what it prints, and damaged source folders."""

import json
import os
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.builders.listing import LISTING
from tests import tiny
from tests.data.formats import exports


@pytest.fixture
def camvid(tmp_path):
    """A source folder in CamVid's layout with two images a split."""
    source = tmp_path / "source"
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        lines = []
        for k in range(2):
            name = f"{split}/{split}_{k}.png"
            for folder in (split, f"{split}annot"):
                (source / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (36, 48, 3), np.uint8)).save(source / name)
            blocks = draw.integers(0, 12, (3, 4), np.uint8).repeat(12, 0).repeat(12, 1)
            Image.fromarray(blocks).save(source / f"{split}annot/{split}_{k}.png")
            lines.append(f"/home/author/CamVid/{name} /home/author/CamVid/{split}annot/{split}_{k}.png\n")
        (source / f"{split}.txt").write_text("".join(lines))
    return source


def test_prepare_prints_what_it_made(camvid, command, tmp_path):
    found = command("prepare", "camvid", "--source", camvid, "--data-dir", tmp_path / "data")
    assert found.status == 0
    for part in ("camvid 1.0.0", "train 2, val 2", "11: Sky, Building", "MB", "mIoU as a prediction"):
        assert part in found.out
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}
    again = command("prepare", "camvid", "--data-dir", tmp_path / "data")
    made, _, following = found.out.rpartition("\n\n")
    assert following == f"next: scarce-jax train detailer_camvid_small --data-dir {tmp_path / 'data'}\n"
    assert again.status == 0 and again.out.startswith(made)
    anew = f"scarce-jax prepare camvid --source DIR --again --data-dir {tmp_path / 'data'}"
    assert "was prepared before" in again.out and again.out.endswith(f"{anew}\n\n{following}")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")} == before
    same = command("prepare", "camvid", "--source", camvid, "--data-dir", tmp_path / "data")
    assert same.status == 0 and f"prepared before from the files of {camvid}" in same.out
    anew = command("prepare", "camvid", "--source", camvid, "--data-dir", tmp_path / "data", "--again")
    assert anew.status == 0 and anew.out == found.out
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}
    assert after.keys() == before.keys() and all(after[p] != before[p] for p in after if p.is_file())
    listing = next((tmp_path / "data").rglob(LISTING))
    metadata = listing.with_name("metadata.json")
    files = json.loads(metadata.read_text())["files"]
    tiny.edit(metadata, files={name: size for name, size in files.items() if name != listing.name})
    listing.unlink()
    unknown = command("prepare", "camvid", "--source", camvid, "--data-dir", tmp_path / "data")
    assert unknown.status == 0 and "whether its files changed since is not known" in unknown.out


def test_a_changed_source_is_status_1_with_the_command(camvid, command, refused, tmp_path):
    data = ["--data-dir", tmp_path / "data"]
    assert command("prepare", "camvid", "--source", camvid, *data).status == 0
    (camvid / "valannot/val_0.png").write_bytes((camvid / "valannot/val_1.png").read_bytes())
    again = f"scarce-jax prepare camvid --source {camvid} --again --data-dir {tmp_path / 'data'}"
    refused("prepare", "camvid", "--source", camvid, *data, holds=["1 changed (valannot/val_0.png)", again])
    assert command("prepare", "camvid", "--source", camvid, *data, "--again").status == 0
    assert command("prepare", "camvid", "--source", camvid, *data).status == 0


def truncate(source):
    path = source / "train/train_1.png"
    path.write_bytes(path.read_bytes()[:300])
    return [str(path), "train_1", "cannot be decoded"]


def out_of_range(source):
    path = source / "trainannot/train_1.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[3, 4] = 77
    Image.fromarray(mask).save(path)
    return [str(path), "train_1", "id 77", "0..11"]


def rgb_mask(source):
    path = source / "trainannot/train_0.png"
    Image.open(path).convert("RGB").save(path)
    return [str(path), "train_0", "colour image"]


def another_size(source):
    path = source / "valannot/val_1.png"
    Image.fromarray(np.zeros((36, 47), np.uint8)).save(path)
    return [str(path), "val_1", "47x36", "48x36"]


def missing_mask(source):
    path = source / "valannot/val_1.png"
    path.unlink()
    return [str(path), "val_1", "missing"]


@pytest.mark.parametrize("damage", [truncate, out_of_range, rgb_mask, another_size, missing_mask])
def test_a_damaged_source_is_named_and_nothing_is_left(damage, camvid, refused, tmp_path):
    holds = damage(camvid)
    refused("prepare", "camvid", "--source", camvid, "--data-dir", tmp_path / "data", holds=holds)
    assert not (tmp_path / "data").exists()


def test_a_missing_source_folder_is_refused(refused, tmp_path):
    data = tmp_path / "data"
    holds = [f"--source {tmp_path / 'none'}: missing", "train.txt"]
    refused("prepare", "camvid", "--source", tmp_path / "none", "--data-dir", data, holds=holds)
    refused("prepare", "camvid", "--data-dir", data, holds=["--source", "train.txt"])
    refused("prepare", "camvid", "--source", tmp_path, "--data-dir", data, holds=["train.txt"])
    refused("prepare", "camvdi", "--data-dir", data, holds=["did you mean camvid?", "scenes"])
    assert not data.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_folder_that_cannot_be_written_is_refused(refused, camvid, tmp_path):
    (tmp_path / "data").mkdir(mode=0o500)
    refused("prepare", "camvid", "--source", camvid, "--data-dir", tmp_path / "data", holds=["cannot be written"])


def test_an_export_is_prepared_and_checked_by_the_same_flags(command, refused, tmp_path):
    source, data = tmp_path / "source", tmp_path / "data"
    exports.cvat(source)
    (source / "JPEGImages").rename(tmp_path / "photos")
    flags = ["--source", source, "--format", "cvat", "--images", tmp_path / "photos", "--val", "0.34"]
    checked = command("check", *flags)
    assert checked.status == 0
    assert "format cvat; prepare makes train 3 images, 2 masks; val 1 image, 1 mask" in checked.out
    assert "1 cat (1, (250,50,83))" in checked.out
    made = command("prepare", "folder/pets", *flags, "--data-dir", data)
    assert made.status == 0 and "train 3, val 1" in made.out and "no split val" not in made.out
    alone = command("prepare", "folder/alone", *flags[:-2], "--data-dir", data)
    assert alone.status == 0 and "train 4" in alone.out and "no split val" in alone.out
    refused("prepare", "camvid", *flags, "--data-dir", data, holds=["camvid has one layout", "folder/NAME alone"])
    refused("check", "--source", source, holds=["Save images", "--images DIR"])


def test_two_folders_are_prepared(command, tmp_path):
    exports.pairs(tmp_path)
    folders = ["--images", tmp_path / "images", "--masks", tmp_path / "masks", "--classes", tmp_path / "classes.txt"]
    made = command("prepare", "folder/pets", *folders, "--val", "0.4", "--data-dir", tmp_path / "data")
    assert made.status == 0 and "train 3, val 1" in made.out
    again = command("prepare", "folder/pets", *folders, "--val", "0.4", "--data-dir", tmp_path / "data")
    assert f"prepared before from the files of {tmp_path / 'images'}" in again.out


@pytest.mark.parametrize("loose", [False, True])
def test_a_fault_ends_with_the_command_that_says_what_to_do(refused, command, tmp_path, loose):
    source = tmp_path / "my pets"
    exports.pairs(source)
    mask = source / "masks/b.png"
    exports.save(mask, np.full(exports.SIZE, 7, np.uint8))
    where = ["--source", source, "--val", "0.34"]
    if loose:
        where = ["--images", source / "images", "--masks", source / "masks", "--classes", source / "classes.txt"]
    found = refused("prepare", "folder/pets", *where, "--data-dir", tmp_path / "data", holds=[str(mask), "id 7 is in"])
    words = shlex.split(found.splitlines()[-1].partition("scarce-jax ")[2])
    assert words[0] == "check"
    checked = command(*words)
    assert checked.status == 1 and "id 7 (768 pixels)" in checked.out


def test_a_validation_split_without_masks_is_a_warning(command, tmp_path):
    exports.folder(tmp_path / "pets")
    (tmp_path / "val.txt").write_text("d")
    flags = ["--source", tmp_path / "pets", "--val", tmp_path / "val.txt", "--data-dir", tmp_path / "data"]
    found = command("prepare", "folder/pets", *flags)
    assert found.status == 0 and "WARNING val: no image has a fine mask" in found.out
    shutil.rmtree(tmp_path / "pets/train/masks")
    flags = ["--source", tmp_path / "pets", "--data-dir", tmp_path / "data"]
    found = command("prepare", "folder/unlabelled", *flags)
    assert found.status == 0 and "WARNING no image has a mask or tags" in found.out


def test_images_and_masks_go_together(refused, tmp_path):
    for flag in ("--images", "--masks"):
        refused("prepare", "folder/pets", flag, tmp_path, "--data-dir", tmp_path / "data", holds=["go together"])


def test_an_image_of_two_splits_is_told(command, tmp_path):
    exports.folder(tmp_path / "pets")
    shutil.copytree(tmp_path / "pets/train", tmp_path / "pets/val")
    for path in (tmp_path / "pets/val").glob("*/a.png"):
        path.rename(path.with_name("z.png"))
    found = command("prepare", "folder/pets", "--source", tmp_path / "pets", "--data-dir", tmp_path / "data")
    assert found.status == 0
    assert "folder/pets: the split val has 4 images of train (val/b is train/b)" in found.err
