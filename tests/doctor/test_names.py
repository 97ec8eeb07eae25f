"""Names of files: pairs of images and masks, and what tools write."""

from __future__ import annotations

import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from scarce_jax.doctor import check_folders
from scarce_jax.doctor.names import constant_endings, pairs_in
from scarce_jax.errors import InputError
from tests.doctor.examples import (
    check,
    image_of,
    labels,
    mask_of,
    only,
    picture,
    rewrite,
)


@pytest.mark.parametrize(
    ("rename_image", "rename_mask", "image_ending", "mask_ending"),
    [
        ("{}", "{}_mask", "", "_mask"),
        ("{}_leftImg8bit", "{}_gtFine_labelIds", "leftImg8bit", "gtFine_labelIds"),
        ("img_{}", "mask_{}", "^img", "^mask"),
    ],
)
def test_names_that_differ_by_a_constant(folder, rename_image, rename_mask, image_ending, mask_ending):
    for kind, pattern in (("images", rename_image), ("masks", rename_mask)):
        for path in list((folder / kind).rglob("*.*")):
            path.rename(folder / kind / (pattern.format(f"x{path.stem}1") + path.suffix))
    out_of_range = folder / "masks" / (rename_mask.format("xb1") + ".png")
    rewrite(out_of_range, lambda mask: mask + np.uint8(40))
    report = check(folder, coarse=False)
    differ, other = report.problems
    assert differ.kind == "names-differ" and differ.count == 7
    for ending in (image_ending, mask_ending):
        assert ending.strip("^") in differ.examples[0][1]
    assert "rename" in differ.advice
    # The pairs are found all the same, so that the other faults are told in the same go.
    assert (other.kind, other.examples[0][0]) == ("id-out-of-range", str(out_of_range))
    assert report.unlabelled == 0


def test_several_masks_of_each_image_are_told():
    images = [f"city_{k}_leftImg8bit" for k in range(5)]
    masks = [f"city_{k}_gtFine_{kind}" for k in range(5) for kind in ("color", "labelIds")]
    assert len(constant_endings(images, masks)) == 2
    assert constant_endings(images, [f"other{k}{k}{k}" for k in range(5)]) == []


def test_one_kind_of_mask_beside_another(folder):
    for path in list((folder / "masks").rglob("*.png")):
        shutil.copy(path, path.with_stem(f"{path.stem}_vis"))
    finding = only(check(folder, coarse=False).problems, "mask-without-image")
    assert finding.count == 7 and "masks of another kind" in finding.advice and "restore" not in finding.advice
    assert finding.examples[0][1].endswith("train/a has a mask a.png")


def test_other_names_do_not_hide_a_mask_without_image(folder):
    for path in list((folder / "masks").rglob("*.png")):
        path.rename(path.with_stem(f"{path.stem}_gt"))
    Image.fromarray(labels(60)).save(folder / "masks/val/old.png")
    differ, stray = check(folder, coarse=False).problems
    assert (differ.kind, differ.count) == ("names-differ", 7)
    assert (stray.kind, stray.examples[0][0]) == ("mask-without-image", str(folder / "masks/val/old.png"))


def test_names_of_composed_and_of_separate_accents_are_the_same(folder):
    image_of(folder).rename(image_of(folder).with_stem(unicodedata.normalize("NFC", "Bäume")))
    mask_of(folder).rename(mask_of(folder).with_stem(unicodedata.normalize("NFD", "Bäume")))
    report = check(folder, coarse=False)
    assert not report.findings and report.unlabelled == 0


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("task-{}-annotation-17-by-1-tag-cat-0.png", "Label Studio"),
        ("a{}_000019_gtFine_polygons.png", "Cityscapes"),
        ("IMG_{}_jpg.rf.0a1b2c_mask.png", "Roboflow"),
    ],
)
def test_masks_of_known_tools_are_recognised(folder, name, tool):
    for number, path in enumerate(list((folder / "masks").rglob("*.png"))):
        path.rename(folder / "masks" / name.format(number))
    finding = only(check(folder, coarse=False).problems, "mask-without-image")
    assert tool in finding.advice and "scarce-jax prepare" in finding.advice and "restore" not in finding.advice


def test_three_kinds_of_cityscapes_masks(folder):
    for kind in ("images", "masks"):
        for path in list((folder / kind).rglob("*.*")):
            ends = (
                ["leftImg8bit"] if kind == "images" else [f"gtFine_{k}" for k in ("labelIds", "instanceIds", "color")]
            )
            for end in ends:
                shutil.copy(path, folder / kind / f"{path.parent.name}_{path.stem}9_{end}{path.suffix}")
            path.unlink()
    finding = only(check(folder, coarse=False).problems, "names-differ")
    assert finding.count == 21 and "`scarce-jax prepare cityscapes` reads" in finding.advice


def test_masks_below_the_folder_of_images_are_no_images(folder):
    (folder / "masks").rename(folder / "images/masks")
    report = check_folders(folder / "images", folder / "images/masks", classes=4)
    assert not report.findings and (report.images, report.masks, report.unlabelled) == (7, 7, 0)


@pytest.mark.parametrize(
    "names",
    [
        {"a.jpg": "a_mask.png", "b.jpg": "b_mask.png"},
        {"a.png": "a_L.png", "b.png": "b_L.png", "c.png": "c_L.png", "d.png": "d_L.png"},
        {"img_1.png": "mask_1.png", "img_2.png": "mask_2.png"},
        {"1.jpg": "gt1.png", "11.jpg": "gt11.png", "12.jpg": "gt12.png"},
        {"a.jpg": "a.png", "b.jpeg": "b.png"},
    ],
)
def test_pairs_in_one_folder(tmp_path, names):
    for seed, (image, mask) in enumerate(names.items()):
        Image.fromarray(picture(seed)).save(tmp_path / image)
        Image.fromarray(labels(seed)).save(tmp_path / mask)
    report = check_folders(tmp_path, tmp_path, classes=4)
    assert (report.images, report.masks, report.unlabelled) == (len(names), len(names), 0)
    assert only(report.problems, "one-folder").count == len(names)


@pytest.mark.parametrize("names", [[f"{k}" for k in range(1, 40)], ["a", "ab", "b", "c", "d", "e", "f"]])
def test_names_of_images_alone_make_no_pairs(names):
    assert pairs_in(names) == {}


def test_coarse_masks_need_a_folder_of_their_own(folder):
    with pytest.raises(InputError, match="--coarse names the folder of other files"):
        check_folders(folder / "images", folder / "masks", folder / "masks")


def test_pictures_that_are_not_read_are_told(folder):
    (folder / "images/train/IMG_1.HEIC").write_bytes(b"x")
    (folder / "images/train/Thumbs.db").write_bytes(b"x")
    finding = only(check(folder, coarse=False).problems, "not-an-image")
    assert finding.count == 1 and "magick mogrify -format jpg FILE" in finding.advice


def test_annotations_in_json_are_pointed_out(folder):
    for path in (folder / "masks").rglob("*.png"):
        path.with_suffix(".json").write_text("{}")
        path.unlink()
    with pytest.raises(InputError, match=r"7 .json files in it may be annotations: `scarce-jax prepare"):
        check(folder, coarse=False)
    (folder / "images/train/a.json").write_text("{}")
    with pytest.raises(InputError, match=r"no ending such as _mask .* 1 .json file in it may be annotations"):
        check_folders(folder / "images", folder / "images")
