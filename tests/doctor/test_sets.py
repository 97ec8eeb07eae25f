"""Faults that show when masks are compared with images, with each other, or with coarse masks."""

from __future__ import annotations

import shutil

import numpy as np
from PIL import ExifTags, Image

from scarce_jax.data.builders.files import encode_image
from scarce_jax.doctor.pixels import outline
from tests.doctor.examples import (
    CLASSES,
    COLOURS,
    HEIGHT,
    WIDTH,
    check,
    image_of,
    labels,
    mask_of,
    only,
    outlined,
    picture,
    redraw,
)


def test_colour_masks_list_their_colours(folder):
    redraw(folder, lambda mask: COLOURS[mask])
    finding = only(check(folder, coarse=False).problems, "colour-mask")
    assert finding.count == 7 and "RGB picture of 4 colours" in finding.examples[0][1]
    assert all(colour in finding.advice for colour in ("(0,0,0)", "(250,10,10)", "(10,250,10)", "(10,10,250)"))


def test_the_colours_of_cvat_are_in_its_labelmap(folder):
    redraw(folder, lambda mask: COLOURS[mask])
    (folder / "masks/labelmap.txt").write_text("# label:color_rgb:parts:actions\n")
    advice = only(check(folder, coarse=False).problems, "colour-mask").advice
    assert advice.startswith("labelmap.txt beside them") and "scarce-jax prepare folder/NAME" in advice


def test_grey_masks_saved_as_colours(folder):
    redraw(folder, lambda mask: np.repeat(mask[..., None], 3, 2))
    assert "three channels are equal" in only(check(folder, coarse=False).problems, "colour-mask").advice


def test_photographs_among_the_masks(folder):
    shutil.rmtree(folder / "masks")
    shutil.copytree(folder / "images", folder / "masks")
    for path in list((folder / "masks").rglob("*.jpg")):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    assert "photograph" in only(check(folder, coarse=False).problems, "colour-mask").advice


def test_shapes_are_told_apart():
    mask = labels(0)
    assert outline(outlined(mask, 9), 9) and not any(outline(mask, k) for k in range(CLASSES))


def test_an_image_of_another_split_under_another_name(folder):
    image_of(folder, "val/g").write_bytes(image_of(folder, "train/a").read_bytes())
    finding = only(check(folder).problems, "image-in-two-splits")
    assert finding.examples == [
        (str(image_of(folder, "val/g")), f"in val: the same pixels as {image_of(folder, 'train/a')} in train")
    ]
    assert "remove it from one" in finding.advice


def test_an_image_twice_in_one_split(folder):
    image_of(folder, "train/b").write_bytes(image_of(folder, "train/a").read_bytes())
    assert str(image_of(folder, "train/a")) in only(check(folder).warnings, "duplicate-image").examples[0][1]


def test_a_constant_image(folder):
    image_of(folder).write_bytes(encode_image(np.full((HEIGHT, WIDTH, 3), 30, np.uint8)))
    assert "(30, 30, 30)" in only(check(folder).warnings, "constant-image").examples[0][1]


def test_an_image_of_hidden_pixels(folder):
    hidden = np.full((HEIGHT, WIDTH), 255, np.uint8)
    hidden[: HEIGHT // 4] = 0
    Image.fromarray(np.dstack([picture(1), hidden])).save(image_of(folder).with_suffix(".png"))
    Image.fromarray(np.dstack([picture(2), hidden + 200])).save(image_of(folder, "train/c").with_suffix(".png"))
    for name in ("train/b", "train/c"):
        image_of(folder, name).unlink()
    warning = only(check(folder).warnings, "transparent-image")
    assert warning.examples == [(str(image_of(folder).with_suffix(".png")), "25% of the pixels are transparent")]


def test_an_image_turned_half_round(folder):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.open(image_of(folder)).save(image_of(folder), exif=exif)
    warning = only(check(folder, coarse=False).warnings, "exif-rotation")
    assert warning.examples[0][0] == str(mask_of(folder))


def test_unlabelled_coded_as_a_class_in_coarse_masks(folder):
    redraw(folder, lambda mask: np.where(mask % 255 == 0, 3, mask).astype(np.uint8), "coarse")
    finding = only(check(folder).problems, "coarse-contradicts-fine")
    assert finding.count == 7 and "coarse id 3 (class 3)" in finding.advice and "255 for unlabelled" in finding.advice
