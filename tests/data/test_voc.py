"""The datasets `voc` and `voc/animals`, from made folders in the layouts of the archives."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.budget import Budget, draw_manifest
from scarce_jax.data.builders import load_info, prepare
from scarce_jax.data.datasets import KNOWN, VOC
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError
from tests.data.voc_files import (
    GROWN,
    SHOWN,
    TRAIN,
    VAL,
    mask,
    save_list,
    save_objects,
    save_palette,
    save_sbd,
    write_voc,
)


def read(data, split, name="voc"):
    """Id -> (fine, names of its tags) of every example."""
    reader = Reader(name, split, str(data))
    classes = np.array(reader.info.classes)
    examples = [reader.read(k) for k in range(len(reader))]
    tags = [None if e["tags"] is None else set(classes[e["tags"] > 0]) for e in examples]
    return {e["id"]: (e["fine"], shown) for e, shown in zip(examples, tags, strict=True)}


def test_voc_alone_has_the_masks_as_indices_and_tags_from_them(tmp_path):
    source = write_voc(tmp_path / "VOCdevkit/VOC2012")
    found = prepare("voc", tmp_path / "data", source)
    assert found.info.splits == {"train": 2, "val": 1} and found.info.classes == VOC.classes
    assert found.tags_from == "the fine masks" and found.info.lacking == {}
    train = read(tmp_path / "data", "train")
    assert tuple(train) == TRAIN and tuple(read(tmp_path / "data", "val")) == VAL
    for name, (fine, tags) in train.items():
        np.testing.assert_array_equal(fine, mask(name))
        assert tags == set(SHOWN[name])
    # The same from the folders above, and the version says that it is.
    for k, above in enumerate((source.parent, source.parent.parent)):
        assert prepare("voc", tmp_path / f"data{k}", above).version == found.version


def test_tags_are_the_annotated_objects(tmp_path):
    # The car is in no mask, and what has no file of its own is tagged by its mask.
    found = prepare("voc", tmp_path / "data", write_voc(tmp_path / "VOC2012", {"2007_000001": ("cat", "car")}))
    assert found.tags_from == "the objects of Annotations/*.xml, else the fine masks"
    tags = {name: tags for name, (_, tags) in read(tmp_path / "data", "train").items()}
    assert tags == {"2007_000001": {"cat", "car"}, "2007_000002": {"person"}}


@pytest.mark.parametrize("kind", ["aug", "sbd"])
@pytest.mark.parametrize("listed", [True, False])
def test_train_aug_is_all_that_has_a_mask_and_is_not_val(tmp_path, kind, listed):
    source = write_voc(tmp_path / "VOC2012")
    if kind == "aug":
        for name in SHOWN:
            save_palette(source / f"SegmentationClassAug/{name}.png", mask(name, void=False))
    else:
        # SBD holds some of VOC's images too, of its val as of its train.
        for name in (*GROWN, TRAIN[0], VAL[0]):
            save_sbd(source.parent / f"benchmark_RELEASE/dataset/cls/{name}.mat", mask(name, void=False))
    order = (*GROWN[::-1], *TRAIN) if listed else tuple(sorted((*TRAIN, *GROWN)))
    if listed:
        save_list(source, "train_aug", [f"/JPEGImages/{k}.jpg /SegmentationClassAug/{k}.png" for k in order])
    found = prepare("voc", tmp_path / "data", tmp_path)
    assert found.info.splits == {"train": 4, "val": 1} and found.version.startswith("1.0.0+")
    train = read(tmp_path / "data", "train")
    assert tuple(train) == order
    for name, (fine, _) in train.items():
        # VOC's own mask, with its void, wherever there is one.
        np.testing.assert_array_equal(fine, mask(name, void=name in TRAIN))
    ours = draw_manifest(
        Budget(fine=str(source / "ImageSets/Segmentation/train.txt")), tuple(train), np.ones((4, 21)), VOC.classes,
        "voc", found.version, "train",
    )  # fmt: skip
    assert ours.roles["fine"] == TRAIN and set(ours.roles["unlabelled"]) == set(GROWN)


def test_test_images_have_no_truth_whatever_is_annotated(tmp_path):
    source = write_voc(tmp_path / "VOC2012", {"2008_000004": ("person",)})
    save_list(source, "test", ("2008_000004", "2008_000005"))
    found = prepare("voc", tmp_path / "data", source)
    assert found.info.splits == {"train": 2, "val": 1, "test": 2}
    assert read(tmp_path / "data", "test") == {"2008_000004": (None, None), "2008_000005": (None, None)}
    # Somebody who has the masks can measure on them.
    save_palette(source / "SegmentationClass/2008_000005.png", mask("2008_000005"))
    prepare("voc", tmp_path / "masked", source)
    fine, tags = read(tmp_path / "masked", "test")["2008_000005"]
    assert tags == {"car"} and (fine == mask("2008_000005")).all()
    # Which of them show an animal is not known.
    assert "test" not in prepare("voc/animals", tmp_path / "data", source).info.splits


def test_listed_images_without_masks_have_tags(tmp_path):
    source = write_voc(tmp_path / "VOC2012", SHOWN)
    save_list(source, "train_aug", (*TRAIN, *GROWN))
    found = prepare("voc", tmp_path / "data", source)
    assert found.info.splits["train"] == 4 and found.info.having("train", "fine") == 2
    assert "train: 2 with a fine mask, 2 with a coarse mask, 4 with a list of tags" in str(found)
    train = read(tmp_path / "data", "train")
    assert all(train[name][0] is None and train[name][1] == set(SHOWN[name]) for name in GROWN)


def test_animals(tmp_path):
    source = write_voc(tmp_path / "VOC2012")
    for name in SHOWN:
        save_palette(source / f"SegmentationClassAug/{name}.png", mask(name))
    labels = {name: [0, *map(VOC.classes.index, shown)] for name, shown in SHOWN.items()}
    labels["2008_000004"] = [15]
    (tmp_path / "image_labels.json").write_text(json.dumps({"classes": VOC.classes, "labels": labels}))
    found = prepare("voc/animals", tmp_path / "data", tmp_path)
    assert found.tags_from == "image_labels.json" and found.directory == tmp_path / "data/voc/animals/1.0.0"
    assert load_info("voc/animals", tmp_path / "data").splits == {"train": 2, "val": 1}
    train = read(tmp_path / "data", "train", "voc/animals")
    # A person alone and a car are no animals.
    assert tuple(train) == ("2007_000001", "2008_000004")
    fine, tags = train["2007_000001"]
    np.testing.assert_array_equal(fine, np.select([mask("2007_000001") == k for k in (0, 8)], [0, 1], 255))
    assert tags == {"cat"} and train["2008_000004"][1] == {"person"}
    assert set(np.unique(train["2008_000004"][0])) == {0, 4, 5, 255}
    # Beside the whole dataset, in one data folder.
    assert prepare("voc", tmp_path / "data", tmp_path).info.splits == {"train": 4, "val": 1}
    assert read(tmp_path / "data", "train", "voc/animals").keys() == train.keys()


def test_animals_without_masks_go_by_their_tags(tmp_path):
    source = write_voc(tmp_path / "VOC2012", SHOWN)
    save_list(source, "train_aug", (*TRAIN, *GROWN))
    found = prepare("voc/animals", tmp_path / "data", source)
    assert found.info.splits == {"train": 2, "val": 1} and found.info.lacking["train"]["fine"] == 1
    lacking = Reader("voc/animals", "train", str(tmp_path / "data")).lacking
    assert lacking["fine"] == {"2008_000004"}


def _no_images(root):
    (root / "JPEGImages").rename(root / "images")
    return ["has no JPEGImages", "VOCdevkit/VOC2012", "SegmentationClassAug"]


def _no_lists(root):
    shutil.rmtree(root / "ImageSets")
    return ["ImageSets/Segmentation: has no train.txt"]


def _no_image(root):
    (root / f"JPEGImages/{TRAIN[0]}.jpg").unlink()
    return [f"{TRAIN[0]}.jpg: the image of", "(train)"]


def _no_test_image(root):
    save_list(root, "test", ("2012_004999",))
    return ["2012_004999.jpg: the image of example 2012_004999 is missing (test); restore it", "or remove test.txt"]


def _no_mask(root):
    (root / f"SegmentationClass/{VAL[0]}.png").unlink()
    return [str(root / "SegmentationClass"), f"mask of example {VAL[0]}", "(val)"]


def _no_labels_at_all(root):
    save_list(root, "train_aug", (*TRAIN, *GROWN))
    return ["train_aug.txt", f"{GROWN[0]} has neither a mask nor tags"]


def _half_of_sbd(root):
    save_list(root, "train_aug", (*TRAIN, *GROWN))
    save_sbd(root / f"dataset/cls/{GROWN[0]}.mat", mask(GROWN[0]))
    return [str(root / "dataset/cls"), f"mask of example {GROWN[1]}", "extract the archives completely"]


def _nothing_tells_val(root):
    (root / "ImageSets/Segmentation/val.txt").unlink()
    save_sbd(root / f"dataset/cls/{GROWN[0]}.mat", mask(GROWN[0]))
    return ["val.txt: missing", "which masks"]


def _damaged_mat(root):
    save_sbd(root / f"dataset/cls/{GROWN[0]}.mat", mask(GROWN[0]))
    path = root / f"dataset/cls/{GROWN[0]}.mat"
    path.write_bytes(path.read_bytes()[:150])
    return [f"{path} (example {GROWN[0]})", "GTcls.Segmentation"]


def _other_id(root):
    save_sbd(root / f"dataset/cls/{GROWN[0]}.mat", np.full((20, 24), 21, np.uint8))
    return [f"{GROWN[0]}.mat", "id 21", "0..20, 255"]


def _other_size(root):
    save_sbd(root / f"dataset/cls/{GROWN[0]}.mat", np.zeros((24, 20), np.uint8))
    return [f"{GROWN[0]}.mat", "20x24", "24x20"]


def _colours(root):
    path = root / f"SegmentationClass/{TRAIN[0]}.png"
    Image.open(path).convert("RGB").save(path)
    return [str(path), "colour image"]


def _no_class(root):
    save_objects(root, TRAIN[0], ("cat", "unicorn"))
    return [f"{TRAIN[0]}.xml", "'unicorn'", "aeroplane"]


def _damaged_xml(root):
    save_objects(root, TRAIN[0], ("cat",))
    path = root / f"Annotations/{TRAIN[0]}.xml"
    path.write_text(path.read_text()[:40])
    return [str(path), "XML"]


def _labels_of_others(root):
    (root / "image_labels.json").write_text(json.dumps({"classes": VOC.classes, "labels": {TRAIN[0]: [8]}}))
    return ["image_labels.json: has no labels of example", TRAIN[1]]


def _labels_of_other_classes(root):
    (root / "image_labels.json").write_text(json.dumps({"classes": ["cat"], "labels": {}}))
    return ["image_labels.json", "['cat']", "21 names"]


@pytest.mark.parametrize(
    "damage",
    [
        _no_images, _no_lists, _no_image, _no_test_image, _no_mask, _no_labels_at_all, _half_of_sbd, _nothing_tells_val,
        _damaged_mat, _other_id, _other_size, _colours, _no_class, _damaged_xml, _labels_of_others,
        _labels_of_other_classes,
    ],
)  # fmt: skip
def test_a_wrong_source_is_named(tmp_path, damage):
    root = write_voc(tmp_path / "VOC2012")
    parts = damage(root)
    with pytest.raises(InputError) as caught:
        prepare("voc", tmp_path / "data", tmp_path)
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_dry_run_knows_the_datasets():
    assert {"voc", "voc/animals", "coco", "coco/with_voc"} <= KNOWN.keys()
    assert KNOWN["voc"].splits == {"train": 10582, "val": 1449}
