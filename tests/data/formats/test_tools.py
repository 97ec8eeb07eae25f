"""What each annotation tool writes, and what its wrong files are called."""

from __future__ import annotations

import base64
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.builders import prepare
from scarce_jax.data.builders.formats import Options, read_source
from scarce_jax.data.builders.formats.label_studio import decode_rle
from scarce_jax.data.builders.formats.labelme import shape_region
from scarce_jax.data.builders.formats.objects import paste
from scarce_jax.data.builders.formats.supervisely import decode_bitmap
from scarce_jax.doctor import check_source
from scarce_jax.errors import InputError
from tests.data.formats import exports


def test_cvat_without_images_says_how_to_get_them(written, tmp_path):
    root = written("cvat")
    (root / "JPEGImages").rename(tmp_path / "photos")
    with pytest.raises(InputError, match="Save images.*--images DIR"):
        read_source(root)
    assert len(read_source(root, Options(images=tmp_path / "photos")).splits["train"]) == 4


def test_a_listed_image_must_exist_and_be_in_one_list(written):
    root = written("cvat")
    path = root / "ImageSets/Segmentation/default.txt"
    path.write_text('a\n"b"\nz\n')
    with pytest.raises(InputError, match=r"default.txt, line 3: no image is called 'z'"):
        read_source(root)
    path.write_text("a\nb\n")
    assert "2 images in no list of ImageSets/Segmentation: left out" in read_source(root).notes
    (path.parent / "val.txt").write_text("b\n")
    with pytest.raises(InputError, match="'b' is in .*default.txt too"):
        read_source(root)


def test_labelme2voc_arrays_have_void_as_minus_one(written):
    root = written("labelme2voc")
    shutil.rmtree(root / "SegmentationClassPNG")
    array = exports.truth("a").astype(np.int32)
    array[0] = -1
    np.save(root / "SegmentationClass/a.npy", array)
    expected = exports.truth("a")
    expected[0] = 255
    np.testing.assert_array_equal(read_source(root).splits["train"][0].fine.read(), expected)


def test_labelme_classes_and_images(written, tmp_path):
    root = written("labelme")
    (root / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    layout = read_source(root)
    assert layout.classes.classes == ("_background_", "dog", "cat")
    content = json.loads((root / "a.json").read_text())
    content["shapes"][1]["label"] = "__ignore__"
    content["imageData"] = base64.b64encode(exports.png(exports.image("a"))).decode()
    content["imagePath"] = "..\\photos\\a.png"
    exports.dump(root / "a.json", content)
    (root / "a.png").unlink()
    layout = read_source(root)
    item = next(item for item in layout.splits["train"] if item.name == "a")
    np.testing.assert_array_equal(np.array(Image.open(item.image)), exports.image("a"))
    mask = exports.truth("a")
    np.testing.assert_array_equal(item.fine.read(), np.select([mask == 2, mask == 1], [255, 2], 0))
    content["shapes"][0]["label"] = "kat"
    exports.dump(root / "a.json", content)
    with pytest.raises(InputError, match=r"a.json: the label 'kat' is no class; did you mean cat\?"):
        read_source(root)
    content["imageData"] = None
    exports.dump(root / "a.json", content)
    with pytest.raises(InputError, match="is missing and it holds no imageData"):
        read_source(root)


def test_label_studio_needs_the_json(written):
    root = written("label_studio")
    tasks = json.loads((root / "project-7.json").read_text())
    tasks[0]["annotations"] *= 2
    exports.dump(root / "project-7.json", tasks)
    with pytest.raises(InputError, match="task 1 has 2 annotations"):
        read_source(root)
    tasks[0]["annotations"] = [{**one, "ground_truth": k == 0} for k, one in enumerate(tasks[0]["annotations"])]
    tasks[3]["data"]["image"] = "/data/upload/7/none.png"
    exports.dump(root / "project-7.json", tasks)
    with pytest.raises(InputError, match=r"image of task 4, '/data/upload/7/none.png', is not in"):
        read_source(root)
    (root / "project-7.json").unlink()
    with pytest.raises(InputError, match="no JSON export; expected one JSON export of Label Studio"):
        read_source(root)


def test_roboflow_splits_share_their_classes(written):
    root = written("roboflow")
    shutil.copytree(root / "train", root / "valid")
    assert list(read_source(root).splits) == ["train", "val"]
    (root / "valid/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, dog\n2, cat\n")
    with pytest.raises(InputError, match="other classes than"):
        read_source(root)


def test_coco_files_are_splits(written):
    root = written("coco")
    content = json.loads((root / "annotations.json").read_text())
    (root / "annotations.json").rename(root / "instances_train2017.json")
    path = exports.dump(root / "instances_val.json", content)
    layout = read_source(root)
    assert {split: len(items) for split, items in layout.splits.items()} == {"train": 4, "val": 4}
    assert "2 annotations with iscrowd: drawn as their class, like all others" in layout.notes
    assert layout.classes.describe().startswith("classes (in the masks): 0 background (0), 1 cat (3), 2 dog (9)")
    content["categories"][0]["name"] = "wolf"
    exports.dump(path, content)
    with pytest.raises(InputError, match="instances_val.json: other categories than"):
        read_source(root)
    path.unlink()
    (root / "images/b.jpg").unlink()
    with pytest.raises(InputError, match=r"1 image of it missing \(b.jpg\)"):
        read_source(root)


@pytest.mark.parametrize("outline", [[], None])
def test_boxes_alone_are_no_masks(written, outline):
    root = written("coco")
    content = json.loads((root / "annotations.json").read_text())
    content["annotations"][2]["segmentation"] = outline
    exports.dump(root / "annotations.json", content)
    masks = {item.name: item.fine for item in read_source(root).items()}
    with pytest.raises(InputError, match=r"image b.jpg\): cannot be drawn \(annotation 2 has no segmentation"):
        masks["b"].read()


def test_an_annotation_of_no_image_is_named(written):
    root = written("coco")
    content = json.loads((root / "annotations.json").read_text())
    content["annotations"][2]["image_id"] = 77
    exports.dump(root / "annotations.json", content)
    with pytest.raises(InputError, match="json: annotation 2 is of the image 77, which is not listed"):
        read_source(root)


@pytest.mark.parametrize(
    ("corner", "pixels"), [((1, 2), 6), ((5, 3), 1), ((-1, -1), 2), ((6, 0), 0), ((0, 9), 0), ((-9, 0), 0)]
)
def test_what_lies_outside_of_the_image_is_cut_off(corner, pixels):
    mask = np.zeros((4, 6), np.uint8)
    paste(mask, np.ones((2, 3), bool), corner, 1)
    assert mask.sum() == pixels


def test_a_shape_that_cannot_be_drawn_is_named(written, tmp_path):
    root = written("coco")
    content = json.loads((root / "annotations.json").read_text())
    content["annotations"][2]["segmentation"] = [[1, 2, 3, 4, 5]]
    path = exports.dump(root / "annotations.json", content)
    with pytest.raises(InputError) as caught:
        prepare("folder/x", tmp_path / "data", root)
    for part in (str(path), "image b.jpg", "annotation 2", "export it again"):
        assert part in str(caught.value)


def test_an_image_of_another_size_than_its_annotation_is_named(written, tmp_path):
    root = written("supervisely")
    exports.save(root / "ds1/img/b.jpg", np.zeros((20, 32, 3), np.uint8))
    with pytest.raises(InputError, match=r"b.jpg.json .*the mask is 32x24 pixels, its image .*b.jpg is 32x20"):
        prepare("folder/x", tmp_path / "data", root)
    assert [problem.kind for problem in check_source(root).problems] == ["size-mismatch"]


def test_one_file_is_one_image(written):
    root = written("coco")
    content = json.loads((root / "annotations.json").read_text())
    content["images"][1]["file_name"] = "x/a.jpg"
    exports.dump(root / "annotations.json", content)
    with pytest.raises(InputError, match=r"x/a.jpg and a.jpg are the same file"):
        read_source(root)
    content["images"][1]["file_name"] = "../a.jpg"
    exports.dump(root / "annotations.json", content)
    with pytest.raises(InputError, match="leads out of the folder"):
        read_source(root)


def test_linked_folders_are_read_and_loops_are_not(written, tmp_path):
    root = written("labelme")
    (tmp_path / "more").mkdir()
    for path in (root / "a.json", root / "a.png"):
        path.rename(tmp_path / "more" / path.name)
    (root / "more").symlink_to(tmp_path / "more")
    (root / "loop").symlink_to(root)
    assert [item.name for item in read_source(root).splits["train"]] == ["b", "c", "d", "more/a"]


def test_a_known_bitmap():
    """The example in the documentation of Supervisely's `Bitmap.base64_2_data`."""
    data = (
        "eJzrDPBz5+WS4mJgYOD19HAJAtLMIMwIInOeqf8BUmwBPiGuQPr///9Lb86/C2QxlgT5BTM4PLuRBuTwebo4hlTMSa44sKHhISMDuxpTYrr0"
        "3F6gDIOnq5/LOqeEJgDM5ht6"
    )
    assert decode_bitmap(data).astype(int).tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    plain = base64.b64encode(exports.png(np.eye(3, dtype=bool))).decode()
    np.testing.assert_array_equal(decode_bitmap(plain), np.eye(3, dtype=bool))
    with pytest.raises(ValueError, match="no PNG"):
        decode_bitmap("AAAA")


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ({"shape_type": "rectangle", "points": [[9, 6], [3, 2]]}, 7 * 5),
        ({"shape_type": None, "points": [[3, 2], [9, 2], [9, 6], [3, 6]]}, 7 * 5),
        ({"shape_type": "circle", "points": [[10, 10], [10, 14]]}, 61),
        ({"shape_type": "point", "points": [[10, 10]]}, 97),
        ({"shape_type": "line", "points": [[0, 10], [31, 10]]}, 32 * 10),
    ],
)
def test_shapes_of_labelme(shape, pixels):
    """The numbers are those of `labelme.utils.shape_to_mask` of labelme 6.3.1."""
    assert shape_region(shape, exports.SIZE).sum() == pixels


@pytest.mark.parametrize(
    "shape", [{"shape_type": "polygon", "points": [[0, 0], [5, 5]]}, {"shape_type": "cuboid", "points": [[0, 0]] * 8}]
)
def test_shapes_that_labelme_cannot_draw(shape):
    with pytest.raises(ValueError):
        shape_region(shape, exports.SIZE)


@pytest.mark.parametrize("data", [[], [0, 0, 0, 4], [0, 0, 0, 4, 57, 9, 159, 96, 1], [0, 0, 0, 9, 255, 255, 255, 255]])
def test_damaged_brush_data_are_refused(data):
    with pytest.raises(ValueError, match="brush data"):
        decode_rle(data)


def test_a_region_without_a_label_is_no_background(written, tmp_path):
    root = written("label_studio")
    tasks = json.loads((root / "project-7.json").read_text())
    tasks[1]["annotations"][0]["result"][0]["value"].pop("brushlabels")
    exports.dump(root / "project-7.json", tasks)
    (problem,) = check_source(root).problems
    assert problem.kind == "unusable-mask" and "task 2, b.png" in problem.examples[0][0]
    assert "a region with the labels []" in problem.examples[0][1]


def test_the_short_json_of_label_studio_is_read(written):
    root = written("label_studio")
    short = []
    for task in json.loads((root / "project-7.json").read_text())[:3]:
        (annotation,) = task["annotations"]
        regions = [{**one, **one["value"]} for one in annotation["result"]]
        short.append({"id": task["id"], **task["data"], "tag": regions, "annotator": 1, "annotation_id": 5})
    exports.dump(root / "project-7.json", short)
    layout = read_source(root)
    for item in layout.splits["train"]:
        np.testing.assert_array_equal(item.fine.read(), exports.truth(item.name))
    assert "1 image of no task: left out" in layout.notes


@pytest.mark.parametrize("name", ["voc", "coco", "supervisely"])
def test_accents_that_are_stored_in_two_ways_are_the_same(written, name):
    root = written(name)
    texts = [path for path in root.rglob("*") if path.suffix in (".txt", ".json")]
    for path in texts:
        path.write_text(path.read_text().replace('"a.jpg"', '"\u00e4.jpg"').replace("a\nb", "\u00e4\nb"))
    for path in [path for path in root.rglob("*") if path.name.partition(".")[0] == "a"]:
        stem = "\u00e4" if path.suffix == ".json" else "a\u0308"
        path.rename(path.with_name(path.name.replace("a", stem, 1)))
    items = {item.name[-1]: item for item in read_source(root).splits["train"]}
    np.testing.assert_array_equal(items["\u00e4"].fine.read(), exports.truth("a"))
