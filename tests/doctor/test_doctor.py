"""Every fault of single files that the label doctor knows, planted into a clean folder; and clean folders."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import ExifTags, Image

from scarce_jax.data.builders.files import encode_image
from scarce_jax.doctor import check_folders, check_prepared
from scarce_jax.doctor.source import expected_classes
from scarce_jax.errors import InputError
from tests.doctor.examples import (
    CLASSES,
    COLOURS,
    NAMES,
    check,
    image_of,
    mask_of,
    only,
    outlined,
    picture,
    redraw,
    rewrite,
)


@pytest.mark.parametrize("classes", [CLASSES, None])
def test_a_clean_folder_gives_nothing(folder, classes):
    report = check(folder, classes)
    assert report.clean and not report.warnings, str(report)
    assert (report.checked, report.images, report.masks, report.coarse, report.unlabelled) == (21, 7, 7, 7, 0)
    assert str(report).startswith(f"Checked 21 files of {folder / 'images'} (7 images, 7 masks, 7 coarse masks) in ")


def as_palette(mask: np.ndarray, colours: np.ndarray = COLOURS) -> Image.Image:
    picture = Image.fromarray(mask).convert("P")
    picture.putdata(mask.ravel().tolist())
    picture.putpalette([*colours.ravel().tolist(), *[7] * (768 - colours.size)])
    return picture


def palettes(folder):
    for path in (folder / "masks").rglob("*.png"):
        as_palette(np.asarray(Image.open(path))).save(path)


def deep_masks_of_few_ids(folder):
    redraw(folder, lambda mask: mask.astype(np.uint16))
    for path in (folder / "masks/val").iterdir():
        Image.fromarray(np.asarray(Image.open(path)).astype(np.float32)).save(path.with_suffix(".tif"))
        path.unlink()


def void_borders(folder):
    redraw(folder, lambda mask: outlined(mask, 255))


def no_masks_for_some(folder):
    for kind in ("masks", "coarse"):
        (folder / kind / "train/d.png").unlink()


def other_files(folder):
    (folder / "images/Thumbs.db").write_bytes(b"x")
    (folder / "masks/.hidden.png").write_bytes(b"x")


@pytest.mark.parametrize("change", [palettes, deep_masks_of_few_ids, void_borders, no_masks_for_some, other_files])
def test_what_may_look_odd_and_is_right_gives_nothing(folder, change):
    change(folder)
    report = check(folder)
    assert report.clean and not report.warnings, str(report)
    assert report.unlabelled == (change is no_masks_for_some)


def test_a_prepared_dataset_is_clean(tiny_data):
    report = check_prepared("scenes", tiny_data)
    assert not report.problems, str(report)
    # Its val has seven images: too few for every class.
    assert {finding.kind for finding in report.warnings} <= {"empty-class"}
    assert report.images == report.masks == report.coarse == 19


def empty_mask(folder):
    mask_of(folder).write_bytes(b"")
    return "empty-file", mask_of(folder), "0 bytes", "export it again"


def empty_image(folder):
    image_of(folder).write_bytes(b"")
    return "empty-file", image_of(folder), "0 bytes", "fetch"


def truncated_image(folder):
    path = image_of(folder)
    path.write_bytes(path.read_bytes()[:-500])
    return "truncated-file", path, "cut off after", "broke off"


def truncated_mask(folder):
    path = mask_of(folder)
    path.write_bytes(path.read_bytes()[:120])
    return "truncated-file", path, "cut off after 120 bytes", "broke off"


def damaged_mask(folder):
    path = mask_of(folder)
    data = bytearray(path.read_bytes())
    data[60:120] = bytes(60)
    path.write_bytes(data)
    return "damaged-file", path, "", "export it again"


def text_as_image(folder):
    image_of(folder).write_text("<html>not found</html>")
    return "not-an-image", image_of(folder), "<html>", "replace it"


def phone_photo_called_jpeg(folder):
    image_of(folder).write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    return "not-an-image", image_of(folder), "no known image format", "it is HEIC"


def jpeg_mask(folder):
    path = mask_of(folder).with_suffix(".jpg")
    Image.open(mask_of(folder)).save(path)
    mask_of(folder).unlink()
    return "lossy-mask", path, "JPEG", "as PNG from where it was drawn"


def fractions(folder):
    path = mask_of(folder)
    Image.fromarray(np.asarray(Image.open(path)).astype(np.float32) / 255).save(path.with_suffix(".tif"))
    path.unlink()
    return "not-ids", path.with_suffix(".tif"), "no whole numbers", "round the values to class ids"


def deep_camera_image(folder):
    path = image_of(folder).with_suffix(".png")
    Image.fromarray(picture(1)[..., 0].astype(np.uint16) * 16).save(path)
    image_of(folder).unlink()
    return "unfit-file", path, "16-bit pixels of 0 to ", "if 4095 is the highest value that any can have"


def float_image(folder):
    path = image_of(folder).with_suffix(".tif")
    Image.fromarray(picture(1)[..., 0].astype(np.float32)).save(path)
    image_of(folder).unlink()
    return "unfit-file", path, "32-bit float pixels of 0 to ", "by one scale"


def photograph_of_a_phone(folder):
    path = image_of(folder).with_suffix(".HEIC")
    image_of(folder).rename(path)
    mask_of(folder).unlink()
    (folder / "coarse/train/b.png").unlink()
    return "not-an-image", path, "not an image file that is read", "magick mogrify -format jpg FILE"


def link_to_nothing(folder):
    path = image_of(folder, "train/z")
    path.symlink_to("gone.jpg")
    return "unreadable-file", path, "a link to gone.jpg, which is no file", "restore the file"


def own_palette(folder):
    for name in NAMES[:2]:
        colours = COLOURS[[0, 2, 1, 3]] if name == "train/b" else COLOURS
        as_palette(np.asarray(Image.open(mask_of(folder, name))), colours).save(mask_of(folder, name))
    found = f"id 1 is the colour (10, 250, 10), in {mask_of(folder, 'train/a')} it is (250, 10, 10)"
    return "palettes-differ", mask_of(folder), found, "save them with one palette"


def another_scale(folder):
    path = rewrite(mask_of(folder), lambda mask: np.kron(mask, np.ones((2, 2), np.uint8)))
    return "size-mismatch", path, "256x192, its image b.jpg is 128x96", "nearest neighbour"


def swapped_sides(folder):
    path = rewrite(mask_of(folder), lambda mask: mask.T)
    return "size-mismatch", path, "96x128", "swapped"


def another_crop(folder):
    path = rewrite(mask_of(folder), lambda mask: mask[:, :-20])
    return "size-mismatch", path, "108x96", "another crop"


def turned_image(folder):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(image_of(folder)).save(image_of(folder), exif=exif)
    (folder / "coarse/train/b.png").unlink()
    return "size-mismatch", mask_of(folder), "its image b.jpg is 96x128", "EXIF rotation"


def mask_alone(folder):
    image_of(folder).unlink()
    (folder / "coarse/train/b.png").unlink()
    return "mask-without-image", mask_of(folder), "no image train/b.*", "restore the image"


def equal_stems(folder):
    shutil.copy(image_of(folder), image_of(folder).with_suffix(".jpeg"))
    return "duplicate-stem", image_of(folder), "beside b.jpeg", "rename or remove"


def nameless(folder):
    path = image_of(folder).with_name("bad\nname.jpg")
    path.write_bytes(encode_image(picture(50)))
    return "unreadable-name", str(path).replace("\n", r"\n"), "control characters", "rename"


def out_of_range(folder):
    def paint(mask):
        mask[3:5, 4] = 77
        return mask

    path = rewrite(mask_of(folder), paint)
    return "id-out-of-range", path, "id 77 (2 pixels)", "the list of classes is too short"


def instance_ids(folder):
    path = rewrite(mask_of(folder), lambda mask: (mask.astype(np.uint16) > 1) * np.uint16(26001))
    return "id-out-of-range", path, "id 26001", "instance ids"


def all_void(folder):
    (folder / "coarse/train/b.png").unlink()
    path = rewrite(mask_of(folder), lambda mask: np.full_like(mask, 255))
    return "all-ignore", path, "every pixel is void", "unlabelled"


def coarse_of_another(folder):
    path = rewrite(folder / "coarse/train/b.png", lambda mask: np.where(mask < 255, (mask + 1) % 4, 255).astype("u1"))
    return "coarse-contradicts-fine", path, "99% of its labelled pixels", "of another image"


FILE_FAULTS = [
    empty_mask, empty_image, truncated_image, truncated_mask, damaged_mask, text_as_image, phone_photo_called_jpeg,
    jpeg_mask, fractions, deep_camera_image, float_image, photograph_of_a_phone, link_to_nothing, own_palette,
    another_scale, swapped_sides, another_crop, turned_image, mask_alone, equal_stems, nameless, out_of_range,
    instance_ids, all_void, coarse_of_another,
]  # fmt: skip


@pytest.mark.parametrize("plant", FILE_FAULTS)
def test_a_fault_of_one_file_is_named_alone(folder, plant):
    kind, file, found, advice = plant(folder)
    report = check(folder)
    finding = only(report.problems, kind)
    assert finding.count == 1 and finding.examples[0][0] == str(file)
    assert found in finding.examples[0][1] and advice in finding.advice, str(finding)
    assert all(part in str(report) for part in (kind, "; expected ", "To do: "))
    assert {warning.kind for warning in report.warnings} <= {"duplicate-image"}, str(report)


def test_wrong_folders_and_class_lists_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="missing, expected a folder"):
        check_folders(tmp_path / "none", folder / "masks")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.npy").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no image file \(1 .npy found\)"):
        check_folders(folder / "images", tmp_path / "text")
    for classes, holds in (
        ("0", "0 class"),
        ("300", "300 class"),
        (tmp_path / "none.txt", "neither a number nor a file"),
    ):
        with pytest.raises(InputError, match=holds):
            expected_classes(classes)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="bad.json"):
        expected_classes(tmp_path / "bad.json")
