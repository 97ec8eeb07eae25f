"""Masks of ids and of colours, and what means void in them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.builders import prepare
from scarce_jax.data.builders.formats import read_source
from scarce_jax.data.source import Reader
from scarce_jax.doctor import check_source
from scarce_jax.errors import InputError
from tests.data.formats import exports


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


@pytest.mark.parametrize(("suffix", "lossless"), [(".webp", True), (".webp", False), (".jpg", False)])
def test_colours_are_read_from_lossless_files_alone(written, suffix, lossless):
    root = written("cvat")
    for path in list((root / "SegmentationClass").iterdir()):
        options = {"lossless": True} if lossless else {"quality": 80}
        Image.open(path).save(path.with_suffix(suffix), **options)
        path.unlink()
    kinds = {problem.kind for problem in check_source(root).problems}
    assert kinds == (set() if lossless else {"lossy-mask"})
    if lossless:
        np.testing.assert_array_equal(read_source(root).splits["train"][0].fine.read(), exports.truth("a"))


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


@pytest.mark.parametrize("ids", [None, {"0": "background", "1": "cat", "2": "dog", "7": "dog"}])
def test_palettes_that_differ_are_refused_by_check_and_prepare(written, tmp_path, ids):
    root = written("folder")
    if ids:
        exports.dump(root / "classes.json", {"ids": ids, "background": 0})
    for k, name in enumerate(exports.NAMES):
        truth = exports.truth(name)
        picture = Image.frombytes("P", truth.shape[::-1], truth.tobytes())
        picture.putpalette(np.roll(np.array(exports.COLOURS, np.uint8), 3 * k).ravel().tolist())
        picture.save(root / f"train/masks/{name}.png")
    assert {problem.kind for problem in check_source(root).problems} == {"palettes-differ"}
    with pytest.raises(InputError, match="in its palette id 0 is the colour"):
        prepare("folder/x", tmp_path / "data", root)
