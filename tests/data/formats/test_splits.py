"""Splits by folders, by share and by list."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from scarce_jax.data.builders.formats import Options, read_source
from scarce_jax.errors import InputError
from tests.data.formats import exports


@pytest.mark.parametrize(("train", "val"), [("Train", "valid"), ("training", "validation"), ("train", "Val")])
def test_folders_of_splits_have_many_names(tmp_path, train, val):
    for folder, name in ((train, "a"), (val, "b")):
        exports.save(tmp_path / f"images/{folder}/{name}.png", exports.image(name))
        exports.save(tmp_path / f"annotations/{folder}/{name}.png", exports.truth(name))
        exports.save(tmp_path / f"own/{folder}/images/{name}.png", exports.image(name))
    exports.classes_json(tmp_path)
    exports.classes_json(tmp_path / "own")
    for root in (tmp_path, tmp_path / "own"):
        format_name = "folder" if root.name == "own" else "pairs"
        layout = read_source(root, Options(format=format_name))
        assert {split: [item.name for item in items] for split, items in layout.splits.items()} == {
            "train": ["a"],
            "val": ["b"],
        }


def test_two_folders_of_one_split_are_refused(written):
    root = written("folder")
    shutil.copytree(root / "train", root / "training")
    with pytest.raises(InputError, match="both are the split 'train'"):
        read_source(root)


def test_the_share_depends_on_the_names_alone_and_takes_labelled_images(tmp_path):
    for k in range(20):
        exports.save(tmp_path / f"images/{k}.png", np.full((4, 4, 3), k, np.uint8))
        if k % 2:
            exports.save(tmp_path / f"masks/{k}.png", np.zeros((4, 4), np.uint8))
    exports.classes_json(tmp_path)
    first = read_source(tmp_path, Options(val="0.3"))
    chosen = {item.name for item in first.splits["val"]}
    assert len(chosen) == 3 and all(int(name) % 2 for name in chosen) and len(first.splits["train"]) == 17
    assert {item.name for item in read_source(tmp_path, Options(val="0.3")).splits["val"]} == chosen
    assert chosen < {item.name for item in read_source(tmp_path, Options(val="0.6")).splits["val"]}


def test_augmented_versions_of_an_image_stay_together(tmp_path):
    for k in range(8):
        for version in range(3):
            exports.save(tmp_path / f"train/{k}_jpg.rf.{version}abc.jpg", exports.image("a"))
            exports.save(tmp_path / f"train/{k}_jpg.rf.{version}abc_mask.png", exports.truth("a"))
    (tmp_path / "train/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    splits = read_source(tmp_path, Options(val="0.25")).splits
    sources = [{item.name.partition("_")[0] for item in splits[split]} for split in ("train", "val")]
    assert sources[0].isdisjoint(sources[1]) and len(splits["val"]) == 6


def test_a_list_names_the_validation_images(written, tmp_path):
    root = written("cvat")
    listing = tmp_path / "val.txt"
    listing.write_text("\ufeffb\nJPEGImages/c.jpg\n")
    splits = read_source(root, Options(val=str(listing))).splits
    assert [item.name for item in splits["val"]] == ["b", "c"] and [item.name for item in splits["train"]] == ["a", "d"]
    listing.write_text("b\nz\n")
    with pytest.raises(InputError, match=r"val.txt, line 2: 'z' is no image"):
        read_source(root, Options(val=str(listing)))
    for value, part in (("1.5", "between 0 and 1"), (str(tmp_path / "none.txt"), "neither a number nor a file")):
        with pytest.raises(InputError, match=part):
            read_source(root, Options(val=value))


def test_a_listed_path_of_another_folder_is_no_image(tmp_path):
    for folder in ("cam1", "cam2"):
        exports.save(tmp_path / f"images/{folder}/{folder}.png", exports.image("a"))
        exports.save(tmp_path / f"masks/{folder}/{folder}.png", exports.truth("a"))
    (tmp_path / "classes.txt").write_text("background\ncat\ndog\n")
    listing = tmp_path / "val.txt"
    for line in ("cam1", "cam1/cam1.png", "data/images/cam1/cam1.png"):
        listing.write_text(line)
        assert [item.name for item in read_source(tmp_path, Options(val=str(listing))).splits["val"]] == ["cam1/cam1"]
    listing.write_text("cam2/cam1.png")
    with pytest.raises(InputError, match=r"val.txt, line 1: 'cam2/cam1.png' is no image"):
        read_source(tmp_path, Options(val=str(listing)))


def test_a_second_validation_split_is_refused(written):
    root = written("folder")
    shutil.copytree(root / "train", root / "val")
    with pytest.raises(InputError, match=r"has splits already \(train, val\)"):
        read_source(root, Options(val="0.2"))
