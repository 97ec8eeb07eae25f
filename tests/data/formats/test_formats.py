"""Every format that `prepare folder/NAME` reads: recognised, read, checked, and wrong files named."""

from __future__ import annotations

import base64
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.builders import prepare
from scarce_jax.data.builders.formats import FORMATS, Options, choose, read_source
from scarce_jax.data.builders.formats.label_studio import decode_rle
from scarce_jax.data.builders.formats.labelme import shape_region
from scarce_jax.data.builders.formats.supervisely import decode_bitmap
from scarce_jax.data.source import Reader
from scarce_jax.doctor import check_source
from scarce_jax.errors import InputError
from tests.data.formats import exports


@pytest.fixture
def written(tmp_path):
    """Writes an export by name and returns its folder."""

    def write(name: str):
        root = tmp_path / "source"
        root.mkdir()
        exports.EXPORTS[name][1](root)
        return root

    return write


@pytest.fixture(params=exports.EXPORTS)
def export(request, written):
    """(folder, format) of every export."""
    return written(request.param), exports.EXPORTS[request.param][0]


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


def test_every_file_that_counts_is_listed(export):
    root, name = export
    unread = ("SegmentationObject", "SegmentationClassVisualization", "README", "task-", ".npy", "machine_color")
    for path in root.rglob("*.npy" if name == "labelme2voc" else "nothing"):
        assert path not in read_source(root).files()
    kept = [p for p in root.rglob("*") if p.is_file() and not any(part in str(p) for part in unread)]
    files = read_source(root).files()
    if (root / "ds1/masks_machine").is_dir():
        kept = [p for p in kept if p.name != "meta.json"] + [root / "obj_class_to_machine_color.json"]
    assert set(files) == set(kept)


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
        ({"masks": "x"}, "--masks DIR goes with --images DIR"),
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


# Splits.


@pytest.mark.parametrize(("train", "val"), [("Train", "valid"), ("training", "validation"), ("train", "Val")])
def test_folders_of_splits_have_many_names(tmp_path, train, val):
    for folder, name in ((train, "a"), (val, "b")):
        exports.save(tmp_path / f"images/{folder}/{name}.png", exports.image(name))
        exports.save(tmp_path / f"annotations/{folder}/{name}.png", exports.truth(name))
        exports.save(tmp_path / f"own/{folder}/images/{name}.png", exports.image(name))
    exports.classes_json(tmp_path)
    exports.classes_json(tmp_path / "own")
    for root in (tmp_path, tmp_path / "own"):
        format_name = "folder" if root.name == "own" else "pairs"
        layout = read_source(root, Options(format=format_name))
        assert {split: [item.name for item in items] for split, items in layout.splits.items()} == {
            "train": ["a"],
            "val": ["b"],
        }


def test_two_folders_of_one_split_are_refused(written):
    root = written("folder")
    shutil.copytree(root / "train", root / "training")
    with pytest.raises(InputError, match="both are the split 'train'"):
        read_source(root)


def test_the_share_depends_on_the_names_alone_and_takes_labelled_images(tmp_path):
    for k in range(20):
        exports.save(tmp_path / f"images/{k}.png", np.full((4, 4, 3), k, np.uint8))
        if k % 2:
            exports.save(tmp_path / f"masks/{k}.png", np.zeros((4, 4), np.uint8))
    exports.classes_json(tmp_path)
    first = read_source(tmp_path, Options(val="0.3"))
    chosen = {item.name for item in first.splits["val"]}
    assert len(chosen) == 3 and all(int(name) % 2 for name in chosen) and len(first.splits["train"]) == 17
    assert {item.name for item in read_source(tmp_path, Options(val="0.3")).splits["val"]} == chosen
    assert chosen < {item.name for item in read_source(tmp_path, Options(val="0.6")).splits["val"]}


def test_augmented_versions_of_an_image_stay_together(tmp_path):
    for k in range(8):
        for version in range(3):
            exports.save(tmp_path / f"train/{k}_jpg.rf.{version}abc.jpg", exports.image("a"))
            exports.save(tmp_path / f"train/{k}_jpg.rf.{version}abc_mask.png", exports.truth("a"))
    (tmp_path / "train/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    splits = read_source(tmp_path, Options(val="0.25")).splits
    sources = [{item.name.partition("_")[0] for item in splits[split]} for split in ("train", "val")]
    assert sources[0].isdisjoint(sources[1]) and len(splits["val"]) == 6


def test_a_list_names_the_validation_images(written, tmp_path):
    root = written("cvat")
    listing = tmp_path / "val.txt"
    listing.write_text("\ufeffb\nJPEGImages/c.jpg\n")
    splits = read_source(root, Options(val=str(listing))).splits
    assert [item.name for item in splits["val"]] == ["b", "c"] and [item.name for item in splits["train"]] == ["a", "d"]
    listing.write_text("b\nz\n")
    with pytest.raises(InputError, match=r"val.txt, line 2: 'z' is no image"):
        read_source(root, Options(val=str(listing)))
    for value, part in (("1.5", "between 0 and 1"), (str(tmp_path / "none.txt"), "not a readable text file")):
        with pytest.raises(InputError, match=part):
            read_source(root, Options(val=value))


def test_a_second_validation_split_is_refused(written):
    root = written("folder")
    shutil.copytree(root / "train", root / "val")
    with pytest.raises(InputError, match=r"has splits already \(train, val\)"):
        read_source(root, Options(val="0.2"))


# Masks.


def test_a_colour_of_no_class_is_named_by_file(written, tmp_path):
    root = written("cvat")
    path = root / "SegmentationClass/b.png"
    colours = np.array(Image.open(path))
    colours[:2] = (9, 8, 7)
    Image.fromarray(colours).save(path)
    with pytest.raises(InputError) as caught:
        prepare("folder/x", tmp_path / "data", root)
    for part in (str(path), "(9,8,7)", "64 pixels", "(250,50,83)", "labelmap.txt"):
        assert part in str(caught.value)
    (problem,) = check_source(root).problems
    assert problem.kind == "unusable-mask" and problem.examples[0][0] == str(path)


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_a_palette_in_classes_json_reads_colours_and_ids(written, mode):
    """Palette files by their colours, whatever the order of their own palettes; grey files by their ids."""
    root = written("folder")
    exports.classes_json(root, palette=[list(colour) for colour in exports.COLOURS], ignore=[[224, 224, 192]])
    for shift, name in enumerate(exports.NAMES):
        truth = exports.truth(name)
        truth[0] = 255
        table = np.array([*exports.COLOURS, *[(224, 224, 192)] * 253], np.uint8)
        picture = Image.fromarray(truth)
        if mode == "RGB":
            picture = Image.fromarray(table[truth])
        elif mode == "P":
            order = np.roll(np.arange(3), shift)
            places = np.array([*np.argsort(order), *range(3, 256)], np.uint8)
            picture = Image.frombytes("P", truth.shape[::-1], places[truth].tobytes())
            picture.putpalette(table[[*order, *range(3, 256)]].ravel().tolist())
        picture.save(root / f"train/masks/{name}.png")
    for item in read_source(root).splits["train"][:3]:
        expected = exports.truth(item.name)
        expected[0] = 255
        np.testing.assert_array_equal(item.fine.read(), expected)
    assert check_source(root).clean


def test_ids_may_be_mapped(written):
    root = written("folder")
    native = np.array([3, 7, 26], np.uint8)
    for name in exports.NAMES:
        mask = native[exports.truth(name)]
        mask[0, :4] = (8, 1, 255, 0)
        Image.fromarray(mask).save(root / f"train/masks/{name}.png")
    ids = {"3": "background", "7": "cat", "8": "cat", "26": "dog"}
    exports.dump(root / "classes.json", {"ids": ids, "background": "background", "ignore": [0, 1]})
    layout = read_source(root)
    assert layout.classes.classes == exports.CLASSES
    assert layout.classes.describe() == (
        "classes (in the masks): 0 background (3), 1 cat (7, 8), 2 dog (26); void: 0, 1, 255"
    )
    expected = exports.truth("a")
    expected[0, :4] = (1, 255, 255, 255)
    np.testing.assert_array_equal(layout.splits["train"][0].fine.read(), expected)
    assert check_source(root).clean
    exports.dump(root / "classes.json", {"ids": {"3": "background", "7": "cat", "8": "cat"}, "ignore": [0, 1]})
    (problem,) = check_source(root).problems
    assert (
        problem.kind == "unusable-mask"
        and "id 26" in problem.examples[0][1]
        and "0..1, 3, 7..8, 255" in problem.examples[0][1]
    )


def test_black_and_white_masks_are_a_mapping(tmp_path):
    exports.save(tmp_path / "images/a.png", exports.image("a"))
    exports.save(tmp_path / "masks/a.png", np.where(exports.truth("a") > 0, 255, 0).astype(np.uint8))
    exports.dump(tmp_path / "classes.json", {"ids": {"0": "background", "255": "thing"}, "background": 0})
    layout = read_source(tmp_path)
    np.testing.assert_array_equal(layout.splits["train"][0].fine.read(), exports.truth("a") > 0)
    assert layout.classes.describe().endswith("void: none") and check_source(tmp_path).clean


def test_void_0_before_the_classes(written, tmp_path):
    """As ADE20K has it: ids from 1, and 0 for what has no class."""
    root = written("folder")
    for name in exports.NAMES:
        mask = exports.truth(name) + 1
        mask[0] = 0
        Image.fromarray(mask).save(root / f"train/masks/{name}.png")
    exports.dump(root / "classes.json", {"classes": ["wall", "cat", "dog"], "ignore": 0})
    prepare("folder/x", tmp_path / "data", root)
    expected = exports.truth("a")
    expected[0] = 255
    np.testing.assert_array_equal(Reader("folder/x", "train", str(tmp_path / "data")).read(0)["fine"], expected)
    # Without the highest id it could as well be the class 0 that is void.
    for name in exports.NAMES:
        Image.fromarray(exports.truth(name)).save(root / f"train/masks/{name}.png")
    with pytest.raises(InputError, match=r"'wall' may have the id 0 or the id 1.*\"ids\": {\"1\": \"wall\""):
        prepare("folder/y", tmp_path / "data", root)
    assert any(problem.kind == "void-code" for problem in check_source(root).problems)
    # A name for what the id 0 means shows that it is in the list.
    exports.dump(root / "classes.json", {"classes": list(exports.CLASSES), "ignore": 0})
    with pytest.raises(InputError, match="ignore has 0, which is the id of class 'background'"):
        read_source(root)


def test_several_kinds_of_masks_are_refused(written):
    root = written("mmsegmentation")
    (root / "img_dir/train/d_leftImg8bit.png").unlink()
    for name in exports.NAMES:
        exports.save(root / f"ann_dir/train/{name}_gtFine_instanceIds.png", exports.truth(name))
    with pytest.raises(InputError, match="several kinds of masks .*_gtFine_instanceIds.*_gtFine_labelTrainIds"):
        read_source(root)


# Single formats.


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
    assert layout.classes.classes == ("_background_", "dog", "cat") and root / "labels.txt" in layout.tables
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
    assert item.image not in layout.files() and root / "a.json" in layout.files()
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
