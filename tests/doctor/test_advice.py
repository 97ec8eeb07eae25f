"""Whoever does what the label doctor says gets the right classes, never worse masks in which it finds nothing."""

from __future__ import annotations

import json
import pathlib
import re
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.builders.files import encode_image
from scarce_jax.doctor import check_folders, check_source
from tests.doctor.examples import COLOURS, check, image_of, labels, only, outlined, picture, redraw

NAMES = ["red", "green", "blue"]


def make_source(root: pathlib.Path, change, names: list[str], count: int = 4) -> pathlib.Path:
    """A source folder with masks `change(labels)`, and no other labels."""
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for k in range(count):
            (root / split / f"images/{k}.jpg").write_bytes(encode_image(picture(k + 50 * len(split))))
            Image.fromarray(change(labels(k)).astype(np.uint8)).save(root / split / f"masks/{k}.png")
    write_names(root, names)
    return root


def write_names(root: pathlib.Path, names: list[str], **fields) -> None:
    (root / "classes.json").write_text(json.dumps({"classes": names, **fields}))


def advised_ids(advice: str) -> tuple[dict[int, str], set[int]]:
    """The ids that an advice gives classes, and the void ids."""
    ids, ignore = re.search(r'write "ids": (\{.*?\})(?:, "ignore": (\d+))? in classes.json', advice).groups()
    return {int(value): name for value, name in json.loads(ids).items()}, {255} | ({int(ignore)} if ignore else set())


def named(mask: np.ndarray, names: dict[int, str], void: set[int]) -> list[list[str]]:
    """The name of each pixel's class."""
    assert set(np.unique(mask).tolist()) <= names.keys() | void
    return [[names.get(value, "void") for value in row] for row in mask.tolist()]


def masks_in(root: pathlib.Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(root.glob("train/masks/*.png"))]


TRUTH = {0: "back", 1: "red", 2: "green", 3: "blue"}


def test_ids_from_1(tmp_path):
    root = make_source(tmp_path, lambda mask: mask + 1, ["back", *NAMES])
    finding = only(check_source(root).problems, "id-numbering")
    (reading,) = re.findall(r"\(1\) the ids start at 1, and 4 is blue: (.*?)\. \(2\)", finding.advice)
    assert finding.count == 8
    ids, void = advised_ids(reading)
    for k, mask in enumerate(masks_in(root)):
        assert named(mask, ids, void) == named(labels(k), TRUTH, set())


def test_zero_without_a_name_is_void(tmp_path):
    root = make_source(tmp_path, lambda mask: mask, NAMES)
    finding = only(check_source(root).problems, "id-numbering")
    (reading,) = re.findall(r"\(1\) 0 has no label, and 3 is blue: (.*?)\. \(2\)", finding.advice)
    ids, void = advised_ids(reading)
    for k, mask in enumerate(masks_in(root)):
        assert named(mask, ids, void) == named(labels(k), {**TRUTH, 0: "void"}, set())


def test_zero_without_a_name_is_a_class(tmp_path):
    root = make_source(tmp_path, lambda mask: mask, NAMES)
    assert "(2) 0 is a class without a name, such as the background: put its name first" in str(check_source(root))
    write_names(root, ["back", *NAMES])
    assert not check_source(root).findings


def test_the_id_after_the_last_class_is_void(tmp_path):
    root = make_source(tmp_path, lambda mask: mask, ["back", "red", "green"])
    advice = only(check_source(root).problems, "id-numbering").advice
    assert advice.endswith('(3) green is 2, and 3 has no label: write "ignore": 3 in classes.json')
    write_names(root, ["back", "red", "green"], ignore=3)
    assert not check_source(root).findings


def test_the_id_after_the_last_class_is_void_and_the_first_class_is_absent(tmp_path):
    root = make_source(tmp_path, lambda mask: np.where(mask == 0, 3, mask), ["back", "red", "green"])
    advice = only(check_source(root).problems, "id-numbering").advice
    assert advice.endswith('(2) green is 2, and 3 has no label: write "ignore": 3 in classes.json')
    write_names(root, ["back", "red", "green"], ignore=3)
    assert check_source(root).clean


def test_a_single_name_and_the_background_forgotten(tmp_path):
    root = make_source(tmp_path, lambda mask: mask > 0, ["thing"])
    advice = only(check_source(root).problems, "id-numbering").advice
    assert "if 0 is the background, put its name first" in advice
    write_names(root, ["back", "thing"])
    assert not check_source(root).findings


def test_loose_masks_with_zero_as_void_are_saved_one_lower(folder):
    advice = only(check(folder, classes=3, coarse=False).problems, "id-numbering").advice
    assert "(1) 0 has no label, and 3 is the last class: save 0 as 255 and every class one lower" in advice
    redraw(folder, lambda mask: np.where(mask == 0, 255, mask - 1).astype(np.uint8))
    assert not check(folder, classes=3, coarse=False).findings


def test_loose_masks_from_1_are_saved_one_lower(folder):
    redraw(folder, lambda mask: outlined(mask + np.uint8(1), 255))
    for classes, level in ((4, "problems"), (None, "warnings")):
        finding = only(getattr(check(folder, classes=classes, coarse=False), level), "id-numbering")
        assert "save every class one lower, and leave 255 as it is" in finding.advice
    redraw(folder, lambda mask: np.where(mask == 255, 255, mask - 1).astype(np.uint8))
    assert not check(folder, coarse=False).findings


def test_void_drawn_as_zero_along_borders(tmp_path):
    root = make_source(tmp_path, lambda mask: outlined(mask + np.uint8(1), 0), ["back", *NAMES])
    ids, void = advised_ids(only(check_source(root).problems, "void-code").advice)
    for k, mask in enumerate(masks_in(root)):
        assert named(mask, ids, void) == named(outlined(labels(k), 255), TRUTH, {255})


def test_no_class_is_erased_where_an_absent_class_hides_the_shift(tmp_path):
    """Ids 1 and 2 of three names: 0 is absent, or the ids start at 1 and the last class is absent."""
    root = make_source(tmp_path, lambda mask: np.where(mask > 1, 2, 1), NAMES)
    report = check_source(root)
    finding = only(report.warnings, "id-numbering")
    assert report.clean and "0 (red) is in none" in finding.examples[0][1]
    assert advised_ids(finding.advice) == ({1: "red", 2: "green", 3: "blue"}, {255})


def test_masks_of_ade20k(tmp_path):
    names = ["wall", *(f"class {k}" for k in range(2, 151))]
    root = make_source(tmp_path, lambda mask: mask * 10, names)
    report = check_source(root)
    advice = only(report.warnings, "id-numbering").advice
    assert report.clean and '"1": "wall", "2": "class 2"' in advice and '"150": "class 150"}, "ignore": 0' in advice
    redraw(root, lambda mask: np.where(mask == 0, 255, mask - 1).astype(np.uint8), ".")
    assert not [f for f in check_source(root).findings if f.kind != "exif-rotation"]


@pytest.mark.parametrize(
    ("names", "taken_off", "ids", "void"),
    [
        (["unlabeled", "red", "green", "blue"], "unlabeled", {1: "red", 2: "green", 3: "blue"}, 0),
        (["back", "ignore", "green", "blue"], "ignore", {0: "back", 2: "green", 3: "blue"}, 1),
    ],
)
def test_a_class_called_void_leaves_the_ids_of_the_others(tmp_path, names, taken_off, ids, void):
    root = make_source(tmp_path, lambda mask: mask, names)
    advice = only(check_source(root).warnings, "void-class").advice
    assert advice.startswith(f"if its pixels have no label, take {taken_off} off the list")
    assert advised_ids(advice) == (ids, {255, void})


def test_a_last_class_called_void(tmp_path):
    root = make_source(tmp_path, lambda mask: mask, ["back", "red", "green", "void"])
    assert 'write "ignore": 3 in classes.json' in only(check_source(root).warnings, "void-class").advice
    write_names(root, ["back", "red", "green"], ignore=3)
    assert not check_source(root).findings


@pytest.mark.parametrize(("levels", "stored"), [((0, 127, 254), None), ((0, 85, 170, 255), "255 is read as void")])
def test_grey_levels_get_the_names_that_the_user_knows(tmp_path, levels, stored):
    names = ["back", *NAMES][: len(levels)]
    root = make_source(tmp_path, lambda mask: np.array([*levels, 0])[mask], names)
    finding = only(check_source(root).problems, "id-out-of-range")
    listed = re.search(r'"ids": (\{.*?\})', finding.advice)[1].replace("NAME", '"NAME"')
    assert {int(value) for value in json.loads(listed)} >= set(levels) - {255}
    assert stored is None or stored in finding.advice
    (loose,) = check_folders(root / "train/images", root / "train/masks").warnings
    listed = re.search(r'"ids": (\{.*?\})', loose.advice)[1].replace("NAME", '"NAME"')
    assert loose.kind == "id-numbering" and {int(value) for value in json.loads(listed)} == set(levels)


@pytest.mark.parametrize(
    ("names", "advice", "object_id"),
    [
        (["back", "thing"], "and 0 is back, save 255 as 1 (thing)", 1),
        (["thing"], "name both classes in the list, the one that is 0 first", 1),
        (["back", "red", "green"], "the index of its class, 1 if 0 is the background", 2),
    ],
)
def test_black_and_white_masks_of_a_source(tmp_path, names, advice, object_id):
    root = make_source(tmp_path, lambda mask: (mask > 0) * 255, names)
    finding = only(check_source(root).problems, "one-class")
    assert finding.count == 8 and finding.advice.startswith("if 255 is an object") and advice in finding.advice
    if len(names) == 2:
        assert advised_ids(finding.advice)[0] == {0: "back", 255: "thing"}
    redraw(root, lambda mask: (mask // 255 * object_id).astype(np.uint8), ".")
    write_names(root, ["back", "thing"] if len(names) == 1 else names)
    assert not check_source(root).findings


def test_black_and_white_masks_that_exist_as_jpeg(folder):
    for path in list((folder / "masks").rglob("*.png")):
        shown = Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * np.uint8(255))
        shown.resize((64, 48)).save(path.with_suffix(".jpg"), quality=75)
        path.unlink()
    lossy, size = check(folder, classes=2, coarse=False).problems
    assert (lossy.kind, lossy.count, size.kind, size.count) == ("lossy-mask", 7, "size-mismatch", 7)
    command = re.search(r"Image\.fromarray\(.*?\.astype\('uint8'\)\)", lossy.advice)[0]
    nearest = re.search(r"Image\.resize\(size, Image\.NEAREST\)", size.advice)
    assert nearest
    for path in list((folder / "masks").rglob("*.jpg")):
        mask = eval(command, {"Image": Image, "np": np, "path": path})  # what the message says, as it says it
        mask.resize((128, 96), Image.NEAREST).save(path.with_suffix(".png"))
        path.unlink()
    assert not check(folder, classes=2, coarse=False).findings
    for seed, name in enumerate(("train/a", "train/b")):
        mask = np.asarray(Image.open(folder / "masks" / f"{name}.png"))
        assert np.mean(mask == (labels(seed) > 0)) > 0.97


def test_masks_of_several_classes_in_jpeg_have_no_threshold(folder):
    for path in list((folder / "masks").rglob("*.png")):
        Image.fromarray(np.asarray(Image.open(path)) * np.uint8(80)).save(path.with_suffix(".jpg"))
        path.unlink()
    assert "127" not in only(check(folder, coarse=False).problems, "lossy-mask").advice


def test_equal_channels(folder):
    redraw(folder, lambda mask: np.repeat(mask[..., None], 3, 2))
    advice = only(check(folder, coarse=False).problems, "colour-mask").advice
    command = re.search(r"Image\.open\(path\)\.getchannel\(0\)\.save\(path\)", advice)[0]
    for path in (folder / "masks").rglob("*.png"):
        eval(command, {"Image": Image, "path": path})
    assert not check(folder, coarse=False).findings


def test_colours_hide_no_wrong_size(folder):
    redraw(folder, lambda mask: COLOURS[mask][::2, ::2])
    assert {finding.kind for finding in check(folder, coarse=False).problems} == {"colour-mask", "size-mismatch"}


def test_coarse_masks_in_which_zero_means_unlabelled(folder):
    """Small discs, so that less than a quarter of the pixels differ."""
    for kind in ("masks", "coarse"):
        for path in (folder / kind).rglob("*.png"):
            mask = labels(len(path.stem) + ord(path.stem[-1]))
            mask = cv2.erode(mask, np.ones((15, 15), np.uint8))
            drawn = cv2.erode(mask, np.ones((9, 9), np.uint8)) if kind == "coarse" else mask
            Image.fromarray(drawn).save(path)
    report = check(folder)
    finding = only(report.warnings, "coarse-never-void")
    assert report.clean and finding.count == 7 and "0 (class 0)" in finding.advice
    redraw(folder, lambda mask: np.where(mask == 0, 255, mask).astype(np.uint8), "coarse")
    assert not check(folder).findings


def test_coarse_outlines_that_err_to_both_sides_are_no_fault(folder):
    for path in (folder / "coarse").rglob("*.png"):
        mask = np.asarray(Image.open(folder / "masks" / path.relative_to(folder / "coarse")))
        Image.fromarray(np.roll(mask, 3, 1)).save(path)
    assert not check(folder).findings


def test_a_void_id_of_16_bits(folder):
    redraw(folder, lambda mask: outlined(mask.astype(np.uint16), 65535))
    assert "give --ignore 65535" in only(check(folder, coarse=False).problems, "void-code").advice
    assert not check(folder, coarse=False, ignore=65535).findings


def test_masks_are_renamed_as_told(folder):
    for path in list((folder / "masks").rglob("*.png")):
        path.rename(path.with_stem(f"{path.stem}_gt"))
    finding = only(check(folder, coarse=False).problems, "names-differ")
    old, new = re.search(r"e\.g\. (\S+) to (\S+)$", finding.advice).groups()
    assert old.replace("_gt", "") == new
    for path in list((folder / "masks").rglob("*.png")):
        path.rename(path.with_stem(path.stem.replace("_gt", "")))
    assert not check(folder, coarse=False).findings


def test_masks_of_one_folder_are_moved_as_told(tmp_path):
    (tmp_path / "all").mkdir()
    for k in range(4):
        (tmp_path / f"all/im{k}.jpg").write_bytes(encode_image(picture(k)))
        Image.fromarray(labels(k)).save(tmp_path / f"all/im{k}_mask.png")
    report = check_folders(tmp_path / "all", tmp_path / "all", classes=4)
    finding = only(report.problems, "one-folder")
    assert (report.images, report.masks, finding.count) == (4, 4, 4)
    old, new = re.search(r"such as (\S+) to (\S+)$", finding.advice).groups()
    assert (old, new) == ("im0_mask.png", "masks/im0.png")
    (tmp_path / "masks").mkdir()
    for k in range(4):
        shutil.move(tmp_path / f"all/im{k}_mask.png", tmp_path / f"masks/im{k}.png")
    moved = check_folders(tmp_path / "all", tmp_path / "masks", classes=4)
    assert not moved.findings and moved.unlabelled == 0


def test_nothing_is_said_to_be_removed_that_is_an_image(folder):
    """One folder of images alone, given for both."""
    (folder / "images/train/extra").mkdir()
    shutil.copy(image_of(folder), folder / "images/train/extra/b.jpg")
    with pytest.raises(Exception, match="name one folder, and no ending such as _mask"):
        check_folders(folder / "images", folder / "images")
