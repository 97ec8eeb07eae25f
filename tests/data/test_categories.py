"""Split-sets, which images they make strong, and what a manifest says of them."""

import json

import numpy as np
import pytest

from scarce_jax.data.budget import Budget, Manifest, draw_manifest
from scarce_jax.data.categories import SPLIT_SETS, expand, is_strong
from scarce_jax.data.datasets import COCO, COCO_WITH_VOC, VOC, VOC_ANIMALS
from scarce_jax.data.files import unseal
from scarce_jax.errors import InputError

SETS = [SPLIT_SETS[f"split-set-{k}"] for k in (1, 2, 3, 4)]
SHOWN = {
    "a": ("cow",), "b": ("cow", "person"), "c": ("cow", "sheep"), "d": ("sheep",), "e": (), "f": ("person", "dog"),
}  # fmt: skip


def tags_of(shown, classes=VOC.classes) -> np.ndarray:
    return np.array([[name in labels for name in classes] for labels in shown], np.uint8)


def draw(budget: Budget) -> Manifest:
    found = tags_of(SHOWN.values())
    return draw_manifest(budget, tuple(SHOWN), found, VOC.classes, "voc", "1.0.0+x", "train", background=0)


def test_the_sets_have_the_papers_sizes_and_name_classes():
    assert [len(names) for names in SETS] == [10, 10, 6, 60]
    assert set(SETS[0]) | set(SETS[1]) == set(VOC.classes[1:]) and not set(SETS[0]) & set(SETS[1])
    assert set(SETS[2]) < set(VOC.classes[1:])
    # The text calls motorbike of set 1 and horse of set 3 weak.
    assert "motorbike" not in SETS[0] and "horse" not in SETS[2]
    assert set(SETS[3]) == set(COCO_WITH_VOC.classes) - set(VOC.classes) == set(COCO.classes[1:])
    for names in SETS:
        assert set(names) <= set(COCO_WITH_VOC.classes) and "background" not in names


def test_facts_of_the_datasets_agree():
    assert VOC_ANIMALS.classes == ("background", "cat", "cow", "dog", "horse", "person", "sheep")
    for info, count in ((VOC, 21), (VOC_ANIMALS, 7), (COCO, 61), (COCO_WITH_VOC, 81)):
        assert len(info.classes) == len(info.palette) == len(set(info.classes)) == len(set(info.palette)) == count
        assert info.background == 0 and info.palette[0] == (0, 0, 0)
    for part in (VOC, VOC_ANIMALS, COCO):
        for name, colour in zip(part.classes, part.palette, strict=True):
            assert COCO_WITH_VOC.palette[COCO_WITH_VOC.classes.index(name)] == colour
    for index, native in enumerate(VOC_ANIMALS.native_ids):
        assert VOC.classes[native] == VOC_ANIMALS.classes[index]
    ids = dict(zip(COCO.classes, COCO.native_ids, strict=True))
    assert (ids["truck"], ids["bench"], ids["elephant"], ids["sports ball"]) == (8, 15, 22, 37)
    assert (ids["wine glass"], ids["bed"], ids["laptop"], ids["book"], ids["toothbrush"]) == (46, 65, 73, 84, 90)


def test_an_image_is_strong_only_if_all_its_labels_are():
    strong = np.array([name in ("cow", "person") for name in VOC.classes])
    assert is_strong(tags_of(SHOWN.values()), strong).tolist() == [True, True, False, False, False, False]


def test_a_set_stands_for_its_classes():
    assert expand(("split-set-3", "sheep", "cow")) == (*SETS[2], "sheep")
    found = draw(Budget(strong_categories=("split-set-3",)))
    assert found == draw(Budget(strong_categories=SETS[2]))
    assert set(found.roles["fine"]) == {"a", "b", "f"} and set(found.roles["unlabelled"]) == {"c", "d", "e"}
    with pytest.raises(InputError, match="'split-set-5'; did you mean split-set-.*the classes are background"):
        draw(Budget(strong_categories=("split-set-5",)))
    with pytest.raises(InputError, match="no class 'truck'"):
        draw(Budget(strong_categories=("split-set-4",)))


def test_the_manifest_says_which_categories_are_strong(tmp_path):
    path = tmp_path / "manifest.json"
    found = draw(Budget(strong_categories=("cow", "sheep")))
    found.write(path)
    assert json.loads(path.read_text())["strong_categories"] == ["cow", "sheep"]
    assert Manifest.read(path) == found and found.strong_categories == ("cow", "sheep")
    # The same images by other categories are another budget; what a stage reads of them is the same.
    same = draw(Budget(strong_categories=("cow", "sheep", "train")))
    assert same.roles == found.roles and same.hash != found.hash and same.role_hashes == found.role_hashes
    content = json.loads(path.read_text())
    content["strong_categories"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="checksum"):
        Manifest.read(path)


def test_the_hash_of_a_manifest_is_that_of_its_canonical_json(tmp_path):
    path = tmp_path / "manifest.json"
    manifest = Manifest(dataset="toy", version="1.0.0", split="train", roles={"fine": ("b",), "tags": ("a", "b")})
    manifest.write(path)
    # By sha256sum of the JSON text.
    expected = "6b7c6961d2402d18a00879c72b64a301220e86c0d9f60151079a4bee7b32272c"
    assert manifest.hash == expected
    assert manifest.role_hashes["fine"] == "cb735f89357d888b8038e44d9855dfa58a9991b23a20b7bd35a974012edc6fee"
    assert unseal(json.loads(path.read_text())) == {
        "dataset": "toy", "version": "1.0.0", "split": "train", "roles": {"fine": ["b"], "tags": ["a", "b"]},
        "strong_categories": [], "fine_per_class": {}, "hash": expected,
    }  # fmt: skip
    assert Manifest.read(path) == manifest
