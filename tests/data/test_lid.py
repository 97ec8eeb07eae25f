"""The dataset `lid`, from made folders in the layouts of ILSVRC DET and of the challenge."""

import json

import numpy as np
import pytest

from scarce_jax.data.budget import Budget, draw_manifest
from scarce_jax.data.builders import prepare
from scarce_jax.data.datasets import KNOWN
from scarce_jax.data.images import read_image
from scarce_jax.data.source import Reader
from scarce_jax.doctor import check_prepared
from scarce_jax.errors import InputError
from tests.data.tagged_files import CLASSES, DET, TRAIN, VAL, image, mask, save, write_image_sets, write_lid


@pytest.fixture
def source(tmp_path):
    return write_lid(tmp_path / "files")


def reader(tmp_path, split):
    return Reader("lid", split, str(tmp_path / "data"))


def refused(source, tmp_path, words):
    with pytest.raises(InputError, match=words):
        prepare("lid", tmp_path / "data", source)
    assert not (tmp_path / "data").exists()


def shown(tags):
    return [set(np.flatnonzero(row).tolist()) for row in tags]


def test_tags_in_training_and_masks_in_validation(source, tmp_path):
    found = prepare("lid", tmp_path / "data", source)
    assert found.info.splits == {"train": 3, "val": 2, "test": 1}
    assert found.info.classes == ("background", *CLASSES) and found.info.background == 0
    assert found.tags_from == f"{DET}/train.json (train), the fine masks (val)"
    train, val, test = (reader(tmp_path, split) for split in found.info.splits)
    # Paths, because two stems are equal.
    assert train.ids == tuple(TRAIN) and val.ids == VAL and test.ids == ("ILSVRC2012_test_00000001",)
    assert shown(train.tags) == [{1, 3}, {200}, set()] and shown(val.tags) == [{1}, {2}]
    assert train.has["tags"].tolist() == [True, True, False]
    assert not train.has["fine"].any() and not test.has["tags"].any() and val.has["fine"].all()
    assert not any(one.has["coarse"].any() for one in (train, val, test))
    for k in range(2):
        np.testing.assert_array_equal(val.read(k)["fine"], mask(1 + k))
    for k, name in enumerate(TRAIN):
        np.testing.assert_array_equal(train.read(k)["image"], read_image(source / DET / f"{name}.JPEG"))


def test_a_summary_without_coarse_masks_or_pixels(source, tmp_path):
    text = str(prepare("lid", tmp_path / "data", source))
    assert "train: 0 with a fine mask, 0 with a coarse mask, 2 with a list of tags" in text
    assert "coarse      none" in text and "coverage" not in text
    row = next(line for line in text.splitlines() if line.split()[:2] == ["thing", "1"])
    assert row.split()[2:5] == ["1", "1", "18.5%"]


def test_a_budget_without_fine_masks(source, tmp_path):
    found = prepare("lid", tmp_path / "data", source)
    train = reader(tmp_path, "train")
    options = {"background": 0, "lacking": train.lacking}
    manifest = draw_manifest(
        Budget(), train.ids, train.tags, found.info.classes, "lid", found.version, "train", **options
    )
    assert manifest.roles["fine"] == () and set(manifest.roles["tags"]) == {*list(TRAIN)[:2]}


def test_the_doctor_names_classes_that_no_training_image_shows(source, tmp_path):
    prepare("lid", tmp_path / "data", source)
    report = check_prepared("lid", str(tmp_path / "data"))
    (note,) = report.notes
    assert not report.findings, str(report)
    assert "4 of 201 classes are in the 2 lists of tags of train; 3 of 201 classes are in the 2 masks of val" in note


def test_the_lists_of_ilsvrc(source, tmp_path):
    write_image_sets(source)
    found = prepare("lid", tmp_path / "data", source)
    assert found.tags_from == "ILSVRC/ImageSets/DET (train), the fine masks (val)"
    train = reader(tmp_path, "train")
    tags = dict(zip(train.ids, shown(train.tags), strict=True))
    assert tags == {name: set(ids) for name, ids in TRAIN.items()}
    # Where an image was only looked through for classes that it does not show, its tags are unknown.
    assert train.lacking["tags"] == {"ILSVRC2013_train/n02672831/n02672831_11"}


def test_splits_that_the_source_does_not_hold(tmp_path):
    source = tmp_path / "files"
    (source / "devkit/data").mkdir(parents=True)
    lines = [f"n{k:08d} {k} {name}\n" for k, name in enumerate(CLASSES, 1)]
    (source / "devkit/data/map_det.txt").write_text("".join(lines))
    refused(source, tmp_path, "files: has no images of train, val or test; expected idx_to_name.json")
    save(source / "val/a.JPEG", image(0))
    refused(source, tmp_path, r"files: has no masks of .*files/val; expected them in .*val_gt, track1_val_annotations")
    save(source / "val_gt/a.png", mask(7))
    found = prepare("lid", tmp_path / "data", source)
    assert found.info.splits == {"val": 1} and found.tags_from == "the fine masks"
    assert found.info.classes[200] == "thing 200"


def test_files_that_are_missing(source, tmp_path):
    (source / f"track1_val_annotations_raw/{VAL[1]}.png").unlink()
    refused(source, tmp_path, rf"raw/{VAL[1]}\.\*: the mask of an example of .*val\.txt is missing \(1 of 2 are\)")
    (source / DET / "ILSVRC2014_train_0001/x_1.JPEG").unlink()
    refused(source, tmp_path, r"train_0001/x_1\.\*: the image of an example of .*train\.json is missing \(1 of 3 are\)")


def test_an_id_that_is_no_class(source, tmp_path):
    save(source / f"track1_val_annotations_raw/{VAL[0]}.png", mask(201))
    refused(source, tmp_path, rf"{VAL[0]}\.png .*id 201 is in the mask .*expected ids 0\.\.200, 255")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"a": [1]}, r"train\.json: entry 0 is \{'a': \[1\]\}, expected the entries of \[\[path"),
        ([["a", [1]], ["b", 1]], r"entry 1 is \['b', 1\]"),
        ([["a", [0]]], r"entry 0 is \['a', \[0\]\].*class ids from 1 to 200"),
        ([["a", [201]]], r"entry 0 is \['a', \[201\]\]"),
        ([["a", [True]]], r"entry 0 is \['a', \[True\]\]"),
        ([["a", ["cat"]]], r"entry 0 is \['a', \['cat'\]\]"),
        ([["a", [1]], ["a", [2]]], r"train\.json: 'a' is listed twice"),
        ([], r"split 'train' has no images"),
    ],
)
def test_a_wrong_list(source, tmp_path, entries, words):
    (source / DET / "train.json").write_text(json.dumps(entries))
    refused(source, tmp_path, words)


def test_wrong_lists_of_ilsvrc(source, tmp_path):
    write_image_sets(source)
    path = source / "ILSVRC/ImageSets/DET/train_7.txt"
    path.write_text("a 1\nb 2\n")
    refused(source, tmp_path, r"train_7\.txt, line 2: 'b 2', expected a path and 1, 0 or -1")
    path.unlink()
    refused(source, tmp_path, r"train_7\.txt: not a readable text file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda names: names.pop("200"), r"idx_to_name\.json: has no name of class 200 \(1 in all\); expected"),
        (lambda names: names.update({"0": "background"}), r"has the id 0 \(1 in all\)"),
        (lambda names: names.update({"7": " "}), "has no name of class 7"),
        (lambda names: names.update({"7": "thing 8"}), "classes have equal names"),
        (lambda names: names.update({"7": "background"}), "or one is called background"),
        (lambda names: names.update({"seven": "x"}), r"json: .*'seven'; expected \{\"1\": name"),
        (lambda names: names.update({"7": ["x"]}), r"idx_to_name\.json: the name of class 7 is \['x'\]; expected"),
    ],
)
def test_wrong_names(source, tmp_path, change, words):
    names = {str(k): name for k, name in enumerate(CLASSES, 1)}
    change(names)
    (source / DET / "idx_to_name.json").write_text(json.dumps(names))
    refused(source, tmp_path, words)


def test_names_are_needed_and_may_be_a_list(source, tmp_path):
    (source / DET / "idx_to_name.json").unlink()
    refused(source, tmp_path, r"files: has no idx_to_name\.json and no devkit/data/map_det\.txt.*copy map_det\.txt")
    (source / "map_det.txt").write_text("n02672831 1 accordion\nn02691156\n")
    refused(source, tmp_path, r"map_det\.txt: not enough values .*; expected")
    (source / "idx_to_name.json").write_text('"accordion"')
    refused(source, tmp_path, r"idx_to_name\.json: found accordion; expected")
    (source / "idx_to_name.json").write_text(json.dumps(CLASSES))
    assert prepare("lid", tmp_path / "data", source).info.classes[1:] == CLASSES


def test_known_facts_have_the_number_of_classes(source, tmp_path):
    known, found = KNOWN["lid"], prepare("lid", tmp_path / "data", source).info
    assert len(known.classes) == len(found.classes) == 201 and known.palette == found.palette
