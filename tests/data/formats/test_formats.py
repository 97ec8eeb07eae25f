"""Every format that `prepare folder/NAME` reads: recognised, read, checked."""

from __future__ import annotations

import numpy as np
import pytest

from scarce_jax.data.builders import prepare
from scarce_jax.data.builders.formats import FORMATS, Options, choose, read_source
from scarce_jax.data.source import Reader
from scarce_jax.doctor import check_source
from scarce_jax.errors import InputError
from tests.data.formats import exports


def test_there_is_an_export_of_every_format():
    assert {name for name, _ in exports.EXPORTS.values()} == set(FORMATS)


def test_a_format_is_recognised_and_its_masks_are_right(export):
    root, name = export
    assert choose(root, Options()) == name
    layout = read_source(root)
    assert layout.format == name and list(layout.splits) == ["train"]
    assert layout.classes.classes[1:] == exports.CLASSES[1:] and layout.classes.background == 0
    items = {item.name[-1] if name == "supervisely" else item.name[0]: item for item in layout.splits["train"]}
    assert items.keys() == {*exports.NAMES, "d"} and items["d"].fine is None
    for letter in exports.NAMES:
        np.testing.assert_array_equal(items[letter].fine.read(), exports.truth(letter))


def test_a_check_says_the_format_and_finds_nothing(export):
    root, name = export
    report = check_source(root)
    assert report.clean, str(report)
    assert (report.images, report.masks) == (4, 3)
    assert report.notes[0] == f"format {name}; prepare makes train 4 images, 3 masks"
    assert "1 cat" in report.notes[1] and "2 dog" in report.notes[1]


@pytest.mark.parametrize("name", ["cvat", "labelme", "coco", "supervisely_masks"])
def test_a_prepared_export_has_its_masks(written, tmp_path, name):
    found = prepare("folder/x", tmp_path / "data", written(name), options=Options(val="0.34"))
    assert found.info.splits == {"train": 3, "val": 1} and found.info.having("val", "fine") == 1
    for split in ("train", "val"):
        reader = Reader("folder/x", split, str(tmp_path / "data"))
        for k, example_id in enumerate(reader.ids):
            fine = reader.read(k)["fine"]
            letter = example_id[-1]
            assert (fine is None) == (letter == "d")
            if fine is not None:
                np.testing.assert_array_equal(fine, exports.truth(letter))


# Which format it is.


def test_a_broken_export_is_named(written):
    root = written("coco")
    (root / "annotations.json").write_text((root / "annotations.json").read_text()[:99])
    with pytest.raises(InputError, match=r"of no known format.*not readable as JSON: annotations.json, which may"):
        choose(root, Options())


def test_one_folder_is_not_named_twice(written):
    root = written("pairs")
    for folders in ({"masks": "images"}, {"masks": "masks", "coarse": "masks"}):
        named = {name: root / folder for name, folder in {"images": "images", **folders}.items()}
        with pytest.raises(InputError, match="name one folder|names the folder of other files"):
            read_source(root, Options(**named))
    (root / "coarse").mkdir()
    with pytest.raises(InputError, match="coarse: no image file; expected masks"):
        read_source(root, Options(images=root / "images", masks=root / "masks", coarse=root / "coarse"))


def test_two_formats_at_once_are_named_and_can_be_chosen(written):
    root = written("voc")
    exports.coco(root)
    with pytest.raises(InputError, match=r"several formats: voc \(SegmentationClass\); coco \(.*--format"):
        choose(root, Options())
    assert read_source(root, Options(format="coco")).format == "coco"


def test_an_unknown_folder_is_described(tmp_path):
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text("0 0.1 0.1")
    exports.save_images(tmp_path / "images/train")
    with pytest.raises(InputError) as caught:
        choose(tmp_path, Options())
    for part in ("of no known format", "images/train (4 .png)", "labels/train (1 .txt)", "cvat: labelmap.txt"):
        assert part in str(caught.value)
    (tmp_path / "leftImg8bit").mkdir()
    with pytest.raises(InputError, match="looks like the dataset cityscapes: scarce-jax prepare cityscapes"):
        choose(tmp_path, Options())


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"format": "cvatt"}, "did you mean cvat?"),
        ({"masks": "."}, "--masks DIR goes with --images DIR"),
        ({"images": ".", "masks": "x"}, "--masks x: missing, expected a folder"),
        ({"images": ".", "masks": ".", "coarse": "x"}, "--coarse x: missing, expected a folder"),
        ({"coarse": "x"}, "--coarse DIR needs"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, part):
    with pytest.raises(InputError) as caught:
        choose(tmp_path, Options(**options))
    assert part in str(caught.value)


def test_any_two_folders_are_a_source(tmp_path):
    exports.save_images(tmp_path / "photos/2020")
    for name in exports.NAMES:
        exports.save(tmp_path / f"drawn/2020/{name}.png", exports.truth(name))
    classes = exports.classes_json(tmp_path)
    options = Options(images=tmp_path / "photos", masks=tmp_path / "drawn", classes=classes)
    layout = read_source(tmp_path / "photos", options)
    assert layout.format == "pairs" and [item.name for item in layout.items()] == [
        "2020/a",
        "2020/b",
        "2020/c",
        "2020/d",
    ]
    found = prepare("folder/x", tmp_path / "data", options=options)
    assert found.info.having("train", "fine") == 3
