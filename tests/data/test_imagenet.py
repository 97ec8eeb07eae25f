"""The dataset `imagenet/NAME`: a tree with a folder for each class."""

import json

import numpy as np
import pytest

from scarce_jax.data.builders import load_info, prepare
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError
from tests.data.tagged_files import SIZE, image, mask, save, write_tree


def refused(source, tmp_path, words):
    with pytest.raises(InputError, match=words):
        prepare("imagenet/mine", tmp_path / "data", source)
    assert not (tmp_path / "data").exists()


def reader(tmp_path, split):
    return Reader("imagenet/mine", split, str(tmp_path / "data"))


@pytest.mark.parametrize(("split", "suffix"), [("val", ".JPEG"), ("validation", ".jpg")])
def test_one_tag_per_image(tmp_path, split, suffix):
    source = write_tree(tmp_path / "files", split=split, suffix=suffix)
    save(source / "test/unknown.JPEG", image(9))
    found = prepare("imagenet/mine", tmp_path / "data", source)
    assert found.info.classes == ("background", "n01", "n02", "n03") and found.info.background == 0
    assert found.info.splits == {"train": 6, "val": 3, "test": 1}
    train, val, test = (reader(tmp_path, part) for part in found.info.splits)
    assert train.ids == tuple(f"train/n0{c}/{k}" for c in (1, 2, 3) for k in (0, 1))
    assert val.ids == ("val/n01/0", "val/n02/0", "val/n03/0") and test.ids == ("test/unknown",)
    assert train.tags.argmax(1).tolist() == [1, 1, 2, 2, 3, 3] and (train.tags.sum(1) == 1).all()
    assert val.tags.argmax(1).tolist() == [1, 2, 3]
    assert train.has["tags"].all() and not test.has["tags"].any()
    assert not any(one.has[field].any() for one in (train, val, test) for field in ("fine", "coarse"))


def test_splits_may_have_fewer_classes_than_train(tmp_path):
    source = write_tree(tmp_path / "files")
    (source / "val/n01/0.JPEG").unlink()
    (source / "val/n01").rmdir()
    save(source / "test/n03/0.JPEG", image(9))
    prepare("imagenet/mine", tmp_path / "data", source)
    assert reader(tmp_path, "val").tags.argmax(1).tolist() == [2, 3]
    assert reader(tmp_path, "test").tags.argmax(1).tolist() == [3]


def test_masks_of_imagenet_s(tmp_path):
    source = write_tree(tmp_path / "files", split="validation")
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[4:9, 3:12, 0] = 2
    colours[0] = (1000 % 256, 1000 // 256, 0)
    save(source / "validation-segmentation/n02/0.png", colours)
    save(source / "validation-segmentation/n03/0.png", mask(3))
    prepare("imagenet/mine", tmp_path / "data", source)
    val = reader(tmp_path, "val")
    assert val.has["fine"].tolist() == [False, True, True] and not val.has["coarse"].any()
    expected = np.zeros(SIZE, np.uint8)
    expected[4:9, 3:12] = 2
    expected[0] = 255
    np.testing.assert_array_equal(val.read(1)["fine"], expected)
    np.testing.assert_array_equal(val.read(2)["fine"], mask(3))


def test_masks_that_do_not_fit(tmp_path):
    source = write_tree(tmp_path / "files")
    masks = source / "val-segmentation"
    save(masks / "n02/0.png", mask(4))
    refused(source, tmp_path, r"n02/0\.png \(example val/n02/0\): id 4 is in the mask .*expected ids 0\.\.3, 255, 1000")
    save(masks / "n02/0.png", mask(2)[1:])
    refused(source, tmp_path, r"n02/0\.png \(example val/n02/0\): the mask is 24x19 pixels")
    save(masks / "n02/0.png", image(0))
    refused(source, tmp_path, r"mask of example val/n02/0: .*colour image")
    save(masks / "n02/0.png", mask(2))
    save(masks / "n02/1.png", mask(2))
    refused(source, tmp_path, r"n02/1\.png: no image in .*val/n02 is called '\w+' \(1 of 2 masks\)")
    (masks / "n02/1.png").unlink()
    save(masks / "n2/0.png", mask(2))
    refused(source, tmp_path, r"val-segmentation/n2: .*files/val has no folder of this name; did you mean n02\?")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("LOC_synset_mapping.txt", "n01 crane, a bird\nn02 crane\nn03 cat, Felis catus\nn04 not here\n"),
        ("classes.json", json.dumps({"n03": "cat", "n02": "crane", "n01": "crane"})),
    ],
)
def test_names_of_classes(tmp_path, file, content):
    source = write_tree(tmp_path / "files")
    (source / file).write_text(content)
    prepare("imagenet/mine", tmp_path / "data", source)
    # The order is that of the folders; equal names are told apart.
    classes = ("background", "crane (n01)", "crane (n02)", "cat")
    assert load_info("imagenet/mine", tmp_path / "data").classes == classes


def test_a_class_called_background(tmp_path):
    source = write_tree(tmp_path / "files", ("background", "cat"))
    found = prepare("imagenet/mine", tmp_path / "data", source)
    assert found.info.classes == ("background", "background (background)", "cat")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("classes.json", '["cat"]', r"classes\.json: has no name of the class in .*train/n01; .*\{\"FOLDER\": \"name"),
        ("classes.json", '{"n01": "a (n02)", "n02": "a", "n03": "a"}', r"two classes are called 'a \(n02\)'"),
        ("classes.json", '{"n01": "a", "n02": 7, "n03": "c"}', r"has no name of the class in .*train/n02"),
        ("classes.json", "{", r"classes\.json: not a readable JSON file"),
        ("LOC_synset_mapping.txt", "n01 a\nn03\n", r"mapping\.txt: has no name of the class in .*n02; .*a line of"),
    ],
)
def test_wrong_names(tmp_path, file, content, words):
    source = write_tree(tmp_path / "files")
    (source / file).write_text(content)
    refused(source, tmp_path, words)


def test_a_tree_that_is_none(tmp_path):
    source = tmp_path / "files"
    source.mkdir()
    refused(source, tmp_path, r"files/train: missing; expected train/CLASS/x\.jpg")
    (source / "train").mkdir()
    refused(source, tmp_path, r"train: 0 folders of classes, expected 1 to 254")
    save(source / "train/x.jpg", image(0))
    refused(source, tmp_path, r"train/x\.jpg: lies in no folder of a class; expected .*train/CLASS/x\.jpg")
    (source / "train/x.jpg").unlink()
    write_tree(source)
    save(source / "val/n09/x.jpg", image(0))
    refused(
        source, tmp_path, r"val/n09: .*files/train has no folder of this name; did you mean n0\d\? \(1 of 4 folders\)"
    )


def test_more_classes_than_a_byte_holds(tmp_path):
    for k in range(255):
        (tmp_path / f"files/train/n{k:03d}").mkdir(parents=True)
    refused(
        tmp_path / "files", tmp_path, r"train: 255 folders of classes, expected 1 to 254, because class ids are bytes"
    )
    (tmp_path / "files/train/n254").rmdir()
    save(tmp_path / "files/train/n253/x.JPEG", image(0))
    prepare("imagenet/mine", tmp_path / "data", tmp_path / "files")
    assert reader(tmp_path, "train").tags.argmax(1).tolist() == [254]
