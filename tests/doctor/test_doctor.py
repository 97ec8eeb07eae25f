"""Every fault that the label doctor knows, planted into a clean folder; and folders that it must find nothing in."""

from __future__ import annotations

import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from scarce_jax.data.builders.files import encode_image, encode_mask
from scarce_jax.data.coarse import example_rng, simulate_coarse
from scarce_jax.doctor import check_folders, check_prepared, check_source
from scarce_jax.doctor.layouts import constant_endings
from scarce_jax.doctor.pixels import outline
from scarce_jax.doctor.source import expected_classes
from scarce_jax.errors import InputError

HEIGHT, WIDTH, CLASSES = 96, 128, 4
NAMES = ["train/a", "train/b", "train/c", "train/d", "val/e", "val/f", "val/g"]
COLOURS = np.array([(0, 0, 0), (250, 10, 10), (10, 250, 10), (10, 10, 250)], np.uint8)


def picture(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return cv2.resize(blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def labels(seed: int) -> np.ndarray:
    """All classes: 0 behind, three discs in front."""
    draw = np.random.default_rng(seed)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for k in (1, 2, 3):
        centre = (int(draw.integers(20, 30)) + 38 * (k - 1), int(draw.integers(30, 60)))
        cv2.circle(mask, centre, int(draw.integers(16, 22)), k, -1)
    return mask


def outlined(mask: np.ndarray, void: int) -> np.ndarray:
    """The mask with a line of void along every border, as PASCAL VOC has it."""
    kernel = np.ones((5, 5), np.uint8)
    return np.where(cv2.dilate(mask, kernel) != cv2.erode(mask, kernel), void, mask).astype(mask.dtype)


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """images, masks, coarse: seven examples in train and val, nothing wrong."""
    for seed, name in enumerate(NAMES):
        files = [tmp_path / kind / name for kind in ("images", "masks", "coarse")]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        mask = labels(seed)
        files[0].with_suffix(".jpg").write_bytes(encode_image(picture(seed)))
        files[1].with_suffix(".png").write_bytes(encode_mask(mask))
        coarse = simulate_coarse(mask, rng=example_rng("folder", name))
        files[2].with_suffix(".png").write_bytes(encode_mask(coarse))
    return tmp_path


def check(folder: pathlib.Path, classes: int | None = CLASSES, coarse: bool = True, **options):
    return check_folders(
        folder / "images", folder / "masks", folder / "coarse" if coarse else None, classes=classes, **options
    )


def mask_of(folder: pathlib.Path, name: str = "train/b") -> pathlib.Path:
    return folder / "masks" / f"{name}.png"


def image_of(folder: pathlib.Path, name: str = "train/b") -> pathlib.Path:
    return folder / "images" / f"{name}.jpg"


def redraw(folder: pathlib.Path, change, kind: str = "masks") -> None:
    """Changes every mask of a kind."""
    for path in (folder / kind).rglob("*.png"):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def rewrite(path: pathlib.Path, change) -> pathlib.Path:
    Image.fromarray(change(np.asarray(Image.open(path)).copy())).save(path)
    return path


def only(findings, kind: str):
    assert [finding.kind for finding in findings] == [kind], "\n".join(map(str, findings))
    return findings[0]


# --- what is clean stays so ---------------------------------------------------------------------------------------


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


# --- files --------------------------------------------------------------------------------------------------------


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
    return "not-an-image", path, "not an image file that is read", "magick FILE FILE.jpg"


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
    empty_mask, empty_image, truncated_image, truncated_mask, damaged_mask, text_as_image, jpeg_mask, fractions,
    deep_camera_image, float_image, photograph_of_a_phone, link_to_nothing, own_palette, another_scale,
    swapped_sides, another_crop, turned_image, mask_alone, equal_stems, nameless, out_of_range, instance_ids,
    all_void, coarse_of_another,
]  # fmt: skip


@pytest.mark.parametrize("plant", FILE_FAULTS)
def test_a_fault_of_one_file_is_named_alone(folder, plant):
    kind, file, found, advice = plant(folder)
    report = check(folder)
    # 26001 needs 16 bits, which is a fault of its own.
    problems = [p for p in report.problems if not (plant is instance_ids and p.kind == "deep-mask")]
    finding = only(problems, kind)
    assert finding.count == 1 and finding.examples[0][0] == str(file)
    assert found in finding.examples[0][1] and advice in finding.advice, str(finding)
    assert all(part in str(report) for part in (kind, "; expected ", "To do: "))
    assert {warning.kind for warning in report.warnings} <= {"duplicate-image"}, str(report)


# --- the code of void ---------------------------------------------------------------------------------------------


def test_void_as_zero_shifts_all_ids(folder):
    redraw(folder, lambda mask: outlined((mask + 1).astype(np.uint8), 0))
    shifted = only(check(folder, coarse=False).problems, "void-code")
    assert shifted.count == 7 and "save every class one lower" in shifted.advice
    unknown = check(folder, classes=None, coarse=False)
    assert unknown.clean
    warning = only(unknown.warnings, "void-code")
    assert "id 0 is thin" in warning.examples[0][1] and "--ignore 0" in warning.advice


@pytest.mark.parametrize("bits", [8, 16])
def test_void_as_minus_one(folder, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    redraw(folder, lambda mask: outlined(mask.astype(dtype), 2**bits - 1))
    report = check(folder, coarse=False)
    if bits == 8:
        assert report.clean and not report.warnings, str(report)
        return
    finding = only(report.problems, "void-code")
    assert "id 65535" in finding.examples[0][1] and "-1 in unsigned 16 bits" in finding.advice and finding.count == 7


def test_void_as_the_highest_id(folder):
    redraw(folder, lambda mask: outlined(mask, CLASSES))
    finding = only(check(folder, coarse=False).problems, "void-code")
    assert "borders of the others" in finding.advice and f"--ignore {CLASSES}" in finding.advice
    assert check(folder, coarse=False, ignore=CLASSES).clean
    for classes in (None, CLASSES + 1):  # it may be a class: only suspicious
        report = check(folder, classes=classes, coarse=False)
        assert report.clean
        assert f"--ignore {CLASSES}" in only(report.warnings, "void-code").advice


def test_an_id_far_beyond_the_others(folder):
    redraw(folder, lambda mask: np.where(np.arange(WIDTH) < 12, 100, mask).astype(np.uint8))
    report = check(folder, classes=None, coarse=False)
    assert report.clean and "--ignore 100" in only(report.warnings, "void-code").advice


def test_an_ignore_id_that_no_mask_has(folder):
    redraw(folder, lambda mask: outlined(mask, 255))
    warning = only(check(folder, ignore=11, coarse=False).warnings, "void-code")
    assert "leave --ignore out" in warning.advice


def test_black_and_white_masks(folder):
    redraw(folder, lambda mask: np.where(mask > 0, 255, 0).astype(np.uint8))
    finding = only(check(folder, classes=None, coarse=False).problems, "one-class")
    assert "write 1" in finding.advice and finding.count == 7


def test_a_class_called_void(folder, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("sky\nroad\ncar\nvoid\n")
    assert "3 (void)" in only(check(folder, classes=names).warnings, "void-class").examples[0][1]


# --- colours, blending ---------------------------------------------------------------------------------------------


def test_colour_masks_list_their_colours(folder):
    redraw(folder, lambda mask: COLOURS[mask])
    finding = only(check(folder, coarse=False).problems, "colour-mask")
    assert finding.count == 7 and "RGB picture of 4 colours" in finding.examples[0][1]
    assert all(colour in finding.advice for colour in ("(0,0,0)", "(250,10,10)", "(10,250,10)", "(10,10,250)"))


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


# --- over the whole set --------------------------------------------------------------------------------------------


def test_classes_without_a_pixel(folder):
    def drop(split):
        for kind in ("masks", "coarse"):
            for path in (folder / kind / split).iterdir():
                rewrite(path, lambda mask: np.where(mask == 3, 0, mask).astype(np.uint8))

    drop("val")
    report = check(folder)
    warning = only(report.warnings, "empty-class")
    assert report.clean and "no pixel of 3 (class 3) in any of 6 masks" in warning.examples[0][1]
    assert "left out of the mean" in warning.advice and "in val" in warning.expected
    drop("train")
    assert "nothing can be learned" in only(check(folder).problems, "empty-class").advice


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


def test_a_thousand_files_with_one_fault_are_one_finding(folder):
    redraw(folder, lambda mask: (mask + 50).astype(np.uint8))
    finding = only(check(folder, coarse=False).problems[:1], "id-out-of-range")
    assert finding.count == 7 and len(finding.examples) == 3
    assert str(finding).startswith("PROBLEM id-out-of-range in 7 places, first ") and "\n" not in str(finding)


# --- a source folder -----------------------------------------------------------------------------------------------


@pytest.fixture
def source(folder, tmp_path) -> pathlib.Path:
    """The same examples as the `folder` builder takes them, with tags."""
    root = tmp_path / "source"
    for path in [p for kind in ("images", "masks", "coarse") for p in (folder / kind).rglob("*.*")]:
        kind, split, name = path.relative_to(folder).parts
        (root / split / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / split / kind / name)
    names = ["back", "red", "green", "blue"]
    (root / "classes.json").write_text(json.dumps({"classes": names, "palette": COLOURS.tolist(), "background": 0}))
    lines = [f"{pathlib.Path(name).name},red;green;blue" for name in NAMES]
    (root / "tags.csv").write_text("\n".join(["id,classes", *lines]))
    return root


def retag(source: pathlib.Path, old: str, new: str) -> None:
    text = (source / "tags.csv").read_text()
    assert old in text
    (source / "tags.csv").write_text(text.replace(old, new))


def test_a_clean_source_gives_nothing(source):
    report = check_source(source)
    assert report.clean and not report.warnings, str(report)
    assert report.checked == 21


def test_tags_that_contradict_the_mask(source):
    retag(source, "b,red;green;blue", "b,red;blue")
    finding = only(check_source(source).problems, "tags-contradict-mask")
    assert finding.examples == [(str(source / "train/masks/b.png"), "the mask has 2 (green), the tags of b do not")]
    assert "correct the tags or the mask" in finding.advice


def test_a_tag_without_a_pixel(source):
    (source / "train/coarse/b.png").unlink()
    path = rewrite(source / "train/masks/b.png", lambda mask: np.where(mask == 3, 0, mask).astype(np.uint8))
    finding = only(check_source(source).problems, "tags-contradict-mask")
    assert finding.examples == [(str(path), "the tags of b have 3 (blue), the mask does not")]
    # What is tagged may lie in the void.
    rewrite(path, lambda mask: np.where(np.arange(WIDTH) < 9, 255, mask).astype(np.uint8))
    report = check_source(source)
    assert report.clean and only(report.warnings, "tags-contradict-mask")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("b,red", "bb,red", "line 3: no image is called 'bb'"),
        ("b,red", "b,pink", "line 3: no class is called 'pink'"),
    ],
)
def test_lines_of_tags_that_fit_nothing(source, old, new, found):
    retag(source, old, new)
    finding = only(check_source(source).problems, "tags-file")
    ((file, text),) = finding.examples
    assert file == str(source / "tags.csv") and text.startswith(found) and "correct it" in finding.advice


def test_ids_that_classes_json_ignores_are_void(source):
    for path in source.glob("*/masks/*.png"):
        rewrite(path, lambda mask: outlined(mask, 9))
    assert "id 9" in only(check_source(source).problems, "id-out-of-range").examples[0][1]
    listing = json.loads((source / "classes.json").read_text())
    (source / "classes.json").write_text(json.dumps({**listing, "ignore": 9}))
    assert check_source(source).clean


def test_a_source_says_255_for_void_alone(source):
    redraw_source = [*source.glob("*/masks/*.png")]
    for path in redraw_source:
        rewrite(path, lambda mask: outlined(mask, CLASSES))
    finding = only([p for p in check_source(source).problems if p.kind == "void-code"], "void-code")
    assert 'write "ignore": 4 in classes.json' in finding.advice and "--ignore" not in finding.advice


@pytest.mark.parametrize(
    ("lowest", "names", "advice"),
    [
        (0, 3, "if 0 is a class without a name, such as the background, put its name first"),
        (1, 4, "the ids start at 1: subtract 1 from each"),
    ],
)
def test_an_id_after_the_last_class_is_never_erased(source, lowest, names, advice):
    """Masks numbered from 1 or with an unnamed 0: what lies under the highest id is a class, not void."""
    for path in source.glob("*/masks/*.png"):
        rewrite(path, lambda mask: mask + np.uint8(lowest))
    for split in ("train", "val"):
        shutil.rmtree(source / split / "coarse")
    (source / "tags.csv").unlink()
    (source / "classes.json").write_text(json.dumps({"classes": ["a", "b", "c", "d"][:names]}))
    finding = next(p for p in check_source(source).problems if p.kind == "void-code")
    assert finding.count == 7 and advice in finding.advice and "write 255" not in finding.advice


@pytest.mark.parametrize("alone", [True, False])
def test_masks_in_a_folder_of_another_name_are_pointed_out(source, alone):
    masks = source / "train/masks"
    masks.rename(source / "train/labels") if alone else shutil.copytree(masks, source / "train/labels")
    report = check_source(source)
    findings = [f for f in (report.problems if alone else report.warnings) if f.kind == "folder-not-read"]
    finding = only(findings, "folder-not-read")
    assert finding.examples == [(str(source / "train/labels"), "4 image files in a folder that is not read")]
    assert "rename it to masks" in finding.advice


# --- input ---------------------------------------------------------------------------------------------------------


def test_wrong_folders_and_class_lists_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="missing, expected a folder"):
        check_folders(tmp_path / "none", folder / "masks")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.npy").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no image file \(1 .npy found\)"):
        check_folders(folder / "images", tmp_path / "text")
    for classes, holds in (("0", "0 class"), ("300", "300 class"), (tmp_path / "none.txt", "not a readable file")):
        with pytest.raises(InputError, match=holds):
            expected_classes(classes)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="bad.json"):
        expected_classes(tmp_path / "bad.json")
