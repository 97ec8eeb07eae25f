"""The dataset `cityscapes`, from a made folder in the layout of its archives."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from scarce_jax.data.budget import Budget, draw_manifest
from scarce_jax.data.builders import prepare
from scarce_jax.data.datasets import CITYSCAPES
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError

HEIGHT, WIDTH = 36, 40
SPLITS = {"train": ("aachen", "jena"), "val": ("lindau",), "test": ("bonn",), "train_extra": ("erfurt",)}


def ids_mask() -> np.ndarray:
    """uint8 [36, 40]: every id from 0 to 33 in a row of its own, and two rows of 255."""
    rows = np.append(np.arange(34, dtype=np.uint8), [255, 255]).astype(np.uint8)
    return np.repeat(rows[:, None], WIDTH, 1)


def name(city: str) -> str:
    return f"{city}_000000_000019"


@pytest.fixture
def cityscapes(tmp_path) -> pathlib.Path:
    """One image a city; fine masks of train and val, dummies of test, coarse ones of train, val and train_extra."""
    root = tmp_path / "files"
    for split, cities in SPLITS.items():
        for city in cities:
            kinds = {"leftImg8bit": "leftImg8bit"}
            if split != "train_extra":
                kinds["gtFine"] = "gtFine_labelIds"
            if split != "test":
                kinds["gtCoarse"] = "gtCoarse_labelIds"
            for folder, ending in kinds.items():
                path = root / folder / split / city / f"{name(city)}_{ending}.png"
                path.parent.mkdir(parents=True)
                picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8) if folder == "leftImg8bit" else ids_mask()
                if split == "test" and folder == "gtFine":
                    picture[:] = 3
                if folder == "gtCoarse":
                    picture[:, :20] = 0
                Image.fromarray(picture).save(path)
    # The archives hold other files beside them.
    Image.fromarray(ids_mask()).save(root / "gtFine/val/lindau" / f"{name('lindau')}_gtFine_labelTrainIds.png")
    return root


def test_splits_ids_and_what_each_has(cityscapes, tmp_path):
    found = prepare("cityscapes", tmp_path / "data", cityscapes)
    assert found.info.splits == {"train": 2, "val": 1, "test": 1, "train_extra": 1}
    assert found.info.native_ids == CITYSCAPES.native_ids and found.version == "1.0.0"
    assert found.coarse_from == "of the dataset (gtCoarse)"
    expected = {"train": (2, 2), "val": (1, 1), "test": (0, 0), "train_extra": (0, 1)}
    assert {s: (found.info.having(s, "fine"), found.info.having(s, "coarse")) for s in expected} == expected
    train = Reader("cityscapes", "train", str(tmp_path / "data"))
    assert train.ids == (name("aachen"), name("jena"))
    example = train.read(0)
    # By the table of the authors' labels.py.
    table = {
        7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14,
        28: 15, 31: 16, 32: 17, 33: 18,
    }  # fmt: skip
    column = np.array([table.get(int(k), 255) for k in ids_mask()[:, 0]])
    np.testing.assert_array_equal(example["fine"], np.repeat(column[:, None], WIDTH, 1))
    assert (example["coarse"][:, :20] == 255).all()
    np.testing.assert_array_equal(example["coarse"][:, 20:], example["fine"][:, 20:])
    assert example["tags"].tolist() == [1] * 19


def test_written_native_ids_are_read_back_as_the_same_classes():
    for k, native in enumerate(CITYSCAPES.native_ids):
        assert CITYSCAPES.indices[native] == k
    assert sorted(CITYSCAPES.indices) == list(range(34)) and sum(v == 255 for v in CITYSCAPES.indices.values()) == 15


def test_without_coarse_masks_they_are_simulated(cityscapes, tmp_path):
    (cityscapes / "gtCoarse").rename(cityscapes / "elsewhere")
    found = prepare("cityscapes", tmp_path / "data", cityscapes)
    assert "simulated" in found.coarse_from
    assert [found.info.having(s, "coarse") for s in ("train", "val", "test", "train_extra")] == [2, 1, 0, 0]


def test_a_part_of_the_archives_is_enough(cityscapes, tmp_path):
    for split in ("train", "test", "train_extra"):
        (cityscapes / "leftImg8bit" / split).rename(cityscapes / split)
    (cityscapes / "gtCoarse/val").rename(cityscapes / "no_coarse")
    found = prepare("cityscapes", tmp_path / "data", cityscapes)
    assert found.info.splits == {"val": 1}
    # Those of other splits are the dataset's own, so none is made up.
    assert (found.info.having("val", "fine"), found.info.having("val", "coarse")) == (1, 0)


def _no_mask(root):
    path = root / f"gtFine/train/jena/{name('jena')}_gtFine_labelIds.png"
    path.unlink()
    return [str(path), name("jena"), "extract gtFine completely"]


def _other_ids(root):
    path = root / f"gtFine/train/jena/{name('jena')}_gtFine_labelIds.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 26001, np.uint16)).save(path)
    return [str(path), "id 26001", "0..33, 255"]


def _no_images(root):
    (root / "leftImg8bit").rename(root / "images")
    return [str(root), "has no leftImg8bit"]


@pytest.mark.parametrize("damage", [_no_mask, _other_ids, _no_images])
def test_a_wrong_source_is_named(cityscapes, tmp_path, damage):
    parts = damage(cityscapes)
    with pytest.raises(InputError) as caught:
        prepare("cityscapes", tmp_path / "data", cityscapes)
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_published_lists_name_its_examples(tmp_path):
    path = tmp_path / "1_30_labeled.txt"
    image = "leftImg8bit/train/jena/jena_000078_000019_leftImg8bit.png"
    path.write_text(f"{image} gtFine/train/jena/jena_000078_000019_gtFine_labelTrainIds.png\n")
    ids = ("aachen_000000_000019", "jena_000078_000019")
    manifest = draw_manifest(
        Budget(fine=str(path)), ids, np.ones((2, 19)), CITYSCAPES.classes, "cityscapes", "1.0.0", "train"
    )
    assert manifest.roles["fine"] == ("jena_000078_000019",)
