"""The datasets `coco` and `coco/with_voc`, and the masks of COCO's annotations."""

import json

import numpy as np
import pytest

from scarce_jax.data.budget import Budget, draw_manifest
from scarce_jax.data.builders import prepare
from scarce_jax.data.builders.coco_masks import Instance, decode_runs, draw, fill
from scarce_jax.data.datasets import COCO, COCO_WITH_VOC, VOC
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError
from tests.data.voc_files import SIZE, mask, write_coco, write_voc

BOWL, APPLE = (5, 4, 19, 4, 19, 16, 5, 16), (8, 6, 12, 6, 12, 10, 8, 10)
"""A square of 14 x 12 pixels, and one of 4 x 4 within it."""


def runs_of(region: np.ndarray) -> list[int]:
    """Run lengths down the columns, the first of pixels that are off."""
    flat = np.concatenate([[False], region.T.ravel()])
    ends = np.flatnonzero(np.diff(flat)).tolist() + [region.size]
    return np.diff([0, *ends]).tolist()


def crowd_region() -> np.ndarray:
    region = np.zeros(SIZE, bool)
    region[2:9, 1:11] = True
    return region


SHOWN = {
    "000000000007": [
        {"name": "apple", "segmentation": [APPLE], "iscrowd": 0},
        {"name": "bowl", "segmentation": [BOWL], "iscrowd": 0},
    ],
    "000000000008": [{"name": "truck", "segmentation": [BOWL]}, {"name": "person", "segmentation": [APPLE]}],
    "000000000009": [],
    "000000000010": [
        {"name": "kite", "segmentation": {"size": SIZE, "counts": runs_of(crowd_region())}, "iscrowd": 1},
        {"name": "truck", "segmentation": [APPLE], "iscrowd": 0},
    ],
    "000000000011": [{"name": "tv", "segmentation": {"size": SIZE, "counts": [480]}, "iscrowd": 1}],
}


def expected(classes) -> dict[str, np.ndarray]:
    first, second = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    first[4:16, 5:19] = classes.index("bowl")
    first[6:10, 8:12] = classes.index("apple")
    second[crowd_region()] = 255
    second[6:10, 8:12] = classes.index("truck")
    return {"000000000007": first, "000000000010": second}


def test_images_of_other_categories_alone(tmp_path):
    source = write_coco(tmp_path / "files", "train", SHOWN)
    write_coco(source, "val", {"000000000012": SHOWN["000000000007"]})
    found = prepare("coco", tmp_path / "data", source)
    assert found.info.splits == {"train": 2, "val": 1} and found.info.classes == COCO.classes
    assert found.tags_from == "the annotated categories"
    reader = Reader("coco", "train", str(tmp_path / "data"))
    wanted = expected(COCO.classes)
    assert reader.ids == tuple(wanted)
    for k, truth in enumerate(wanted.values()):
        np.testing.assert_array_equal(reader.read(k)["fine"], truth)
    # A crowd is a label of its image, although its pixels are void.
    shown = [{COCO.classes[k] for k in np.flatnonzero(tags)} for tags in reader.tags]
    assert shown == [{"apple", "bowl"}, {"kite", "truck"}]


def test_the_older_release_is_read_where_it_is_alone(tmp_path):
    source = write_coco(tmp_path / "files", "train", {"COCO_train2014_7": SHOWN["000000000007"]}, year=2014)
    assert prepare("coco", tmp_path / "a", source).info.splits == {"train": 1}
    assert Reader("coco", "train", str(tmp_path / "a")).ids == ("COCO_train2014_7",)
    # Its train images may be the newer one's val images, so the two are not mixed.
    write_coco(source, "val", {"7": SHOWN["000000000007"]})
    assert prepare("coco", tmp_path / "b", source).info.splits == {"val": 1}


def test_with_voc_is_split_set_4(tmp_path):
    source = tmp_path / "files"
    write_voc(source / "VOC2012")
    write_coco(source / "coco", "train", SHOWN)
    write_coco(source / "coco", "val", {"000000000012": SHOWN["000000000007"]})
    found = prepare("coco/with_voc", tmp_path / "data", source)
    assert found.info.splits == {"train": 4, "val": 1} and found.info.classes == COCO_WITH_VOC.classes
    assert found.tags_from == "VOC: the fine masks; COCO: the annotated categories"
    reader = Reader("coco/with_voc", "train", str(tmp_path / "data"))
    wanted = expected(COCO_WITH_VOC.classes)
    assert reader.ids == ("2007_000001", "2007_000002", *wanted)
    np.testing.assert_array_equal(reader.read(0)["fine"], mask("2007_000001"))
    np.testing.assert_array_equal(reader.read(2)["fine"], wanted["000000000007"])
    assert Reader("coco/with_voc", "val", str(tmp_path / "data")).ids == ("2007_000003",)
    manifest = draw_manifest(
        Budget(strong_categories=("split-set-4",)), reader.ids, reader.tags, reader.info.classes, "coco/with_voc",
        found.version, "train", background=0,
    )  # fmt: skip
    assert set(manifest.roles["fine"]) == set(wanted) and len(manifest.strong_categories) == 60
    assert set(manifest.roles["unlabelled"]) == {"2007_000001", "2007_000002"}
    assert not set(manifest.strong_categories) & set(VOC.classes)


def test_with_voc_needs_both(tmp_path):
    write_coco(tmp_path / "one", "train", SHOWN)
    with pytest.raises(InputError, match="has no JPEGImages.*both VOC: VOC2012.*COCO: annotations"):
        prepare("coco/with_voc", tmp_path / "data", tmp_path / "one")
    write_voc(tmp_path / "two/VOC2012")
    with pytest.raises(InputError, match=r"has no annotations/instances.*both VOC"):
        prepare("coco/with_voc", tmp_path / "data", tmp_path / "two")
    write_coco(tmp_path / "two", "val", SHOWN)
    with pytest.raises(InputError, match="no train images of COCO"):
        prepare("coco/with_voc", tmp_path / "data", tmp_path / "two")
    assert not (tmp_path / "data").exists()


def _edited(root, change):
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return str(path)


def _cut(root):
    path = root / "annotations/instances_train2017.json"
    path.write_text(path.read_text()[:200])
    return [str(path), "fetch it again"]


def _captions(root):
    return [_edited(root, lambda content: content.pop("categories")), "KeyError: 'categories'"]


def _other_categories(root):
    change = lambda content: content["categories"].append({"id": 91, "name": "hair brush"})
    return [_edited(root, change), "hair brush", "none of COCO's 80"]


def _no_folder(root):
    (root / "train2017").rename(root / "images")
    return [str(root / "train2017"), "missing"]


def _no_image(root):
    (root / "train2017/000000000010.jpg").unlink()
    return ["000000000010.jpg: missing", "train2017 completely"]


def _other_size(root):
    change = lambda content: content["images"][0].update(width=25)
    return [_edited(root, change), "24x20 pixels", "25x20"]


def _odd_polygon(root):
    change = lambda content: content["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5]])
    return [_edited(root, change), "annotation 0 of 000000000007.jpg", "5 numbers"]


def _no_region(root):
    change = lambda content: content["annotations"][1].pop("segmentation")
    return [_edited(root, change), "annotation 1 of 000000000007.jpg", "KeyError: 'segmentation'"]


def _short_runs(root):
    change = lambda content: content["annotations"][4]["segmentation"].update(counts=[3, 4])
    return [_edited(root, change), "annotation 4 of 000000000010.jpg", "480 pixels"]


@pytest.mark.parametrize(
    "damage",
    [
        _cut, _captions, _other_categories, _no_folder, _no_image, _other_size, _odd_polygon, _no_region, _short_runs,
    ],
)  # fmt: skip
def test_a_wrong_source_is_named(tmp_path, damage):
    root = write_coco(tmp_path / "files", "train", SHOWN)
    parts = damage(root)
    with pytest.raises(InputError) as caught:
        prepare("coco", tmp_path / "data", root)
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "data").exists()


# Masks of annotations.


def test_polygons_of_whole_pixels_are_exact():
    box = (2, 1, 5, 1, 5, 3, 2, 3)
    found = fill([box], (8, 9))
    assert found[1:3, 2:5].all() and found.sum() == 6
    # Several polygons together, also where they overlap.
    assert fill([(0, 0, 2, 0, 2, 2, 0, 2), (1, 1, 3, 1, 3, 3, 1, 3)], (8, 9)).sum() == 7
    for nothing in ((), (1, 1), (1, 1, 7, 7), (20, 20, 30, 20, 30, 30), (-9, -9, -5, -9, -5, -5)):
        assert not fill([nothing], (8, 9)).any()
    assert not fill([], (8, 9)).any()


def test_a_polygon_takes_nearly_the_pixels_whose_centres_lie_inside():
    """Pixels of the outline are not added: drawing with them enlarges every object."""
    corners = np.random.default_rng(0).uniform(2, 38, (40, 3, 2))
    inside = total = taken = 0
    y, x = np.mgrid[:40, :40] + 0.5
    for points in corners:
        edges = [(p, q) for p, q in zip(points, np.roll(points, -1, 0), strict=True)]
        sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) > 0 for p, q in edges]
        centres = np.all(sides, 0) | ~np.any(sides, 0)
        found = fill([points.ravel().tolist()], (40, 40))
        inside, total, taken = inside + (centres & found).sum(), total + (centres | found).sum(), taken + found.sum()
    assert inside / total > 0.95 and abs(taken / inside - 1) < 0.05


@pytest.mark.parametrize("wrong", ["text", 3, [[1, float("nan")]], [[[1, 2]]], [[0, 0, 1e9, 0, 1e9, 5]]])
def test_what_is_no_polygon_is_refused(wrong):
    with pytest.raises(ValueError):
        fill(wrong, (8, 9))


def compressed(lengths: list[int]) -> str:
    """By the format: differences to the length two before from the fourth on, in groups of 5 bits, the lowest first."""
    text = ""
    for k, value in enumerate(lengths):
        value -= lengths[k - 2] if k > 2 else 0
        while True:
            group, value = value & 31, value >> 5
            last = value == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if last else 32))
            if last:
                break
    return text


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_run_lengths_as_lists_and_as_text(share):
    region = np.random.default_rng(0).random((37, 53)) < share
    lengths = runs_of(region)
    for counts in (lengths, compressed(lengths), compressed(lengths).encode()):
        np.testing.assert_array_equal(decode_runs({"size": [37, 53], "counts": counts}, (37, 53)), region)


def test_known_compressed_runs():
    # 6 off, 3 on, 1000 off, -2 from 3 is 1 on: "6", "3", 1000 = 8 + 31 * 32 with a group more for its sign, -2 = 30.
    found = decode_runs({"size": [10, 101], "counts": "63Xo0N"}, (10, 101))
    assert found.sum() == 4 and found.T.ravel()[6:9].all() and found.T.ravel()[1009]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "do not add up"),
        ([-1, 7], "add up"),
        (None, "add up"),
        ("1\x01", "character"),
        ("1o", "within a number"),
    ],
)
def test_wrong_run_lengths_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        decode_runs({"size": [2, 3], "counts": counts}, (2, 3))
    with pytest.raises(ValueError, match=r"\[3, 2\], expected \[2, 3\]"):
        decode_runs({"size": [3, 2], "counts": [6]}, (2, 3))


def test_smaller_objects_are_seen_and_crowds_lie_below():
    large, small = np.zeros((6, 6), bool), np.zeros((6, 6), bool)
    large[:5], small[2:4] = True, True
    crowd = np.ones((6, 6), bool)
    made = [Instance(label=2, region=small), Instance(label=1, region=large)]
    for order in (made, made[::-1]):
        found = draw([*order, Instance(label=3, region=crowd, crowd=True)], (6, 6))
        assert found.dtype == np.uint8
        assert found[:, 0].tolist() == [1, 1, 2, 2, 1, 255]
    assert draw([], (2, 2)).tolist() == [[0, 0], [0, 0]]
