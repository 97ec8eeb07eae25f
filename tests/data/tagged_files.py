"""Source folders whose training images have tags alone: in the layouts of LID and of ImageNet, with few tiny images."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

SIZE = (20, 24)
CLASSES = tuple(f"thing {k}" for k in range(1, 201))
TRAIN = {
    "ILSVRC2014_train_0000/x_1": [3, 1],
    "ILSVRC2014_train_0001/x_1": [200],
    "ILSVRC2013_train/n02672831/n02672831_11": [],
}
"""LID's training images, and their classes; two stems are equal."""
VAL = ("ILSVRC2012_val_00000002", "ILSVRC2012_val_00000001")
DET = "ILSVRC/Data/DET/train"


def image(seed: int) -> np.ndarray:
    """uint8 [20, 24, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def mask(label: int) -> np.ndarray:
    """uint8 [20, 24]: background, a block of a class, and a void row."""
    found = np.zeros(SIZE, np.uint8)
    found[5:15, 4:20] = label
    found[:2] = 255
    return found


def save(path: pathlib.Path, pixels: np.ndarray) -> None:
    """Writes a file of the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_lid(root: pathlib.Path) -> pathlib.Path:
    """train by train.json, val by val.txt, test by its folder alone."""
    for seed, name in enumerate(TRAIN):
        save(root / DET / f"{name}.JPEG", image(seed))
    (root / DET / "train.json").write_text(json.dumps([[name, ids] for name, ids in TRAIN.items()]))
    (root / DET / "idx_to_name.json").write_text(json.dumps({str(k): name for k, name in enumerate(CLASSES, 1)}))
    for seed, name in enumerate(VAL):
        save(root / f"LID_track1/val/{name}.JPEG", image(10 + seed))
        save(root / f"track1_val_annotations_raw/{name}.png", mask(1 + seed))
    (root / "LID_track1/val.txt").write_text("".join(f"{name}\n" for name in VAL))
    save(root / "LID_track1/test/ILSVRC2012_test_00000001.JPEG", image(20))
    return root


def write_image_sets(root: pathlib.Path) -> None:
    """ILSVRC's lists instead of train.json: 0 beside the last class of an image, -1 beside classes that it lacks."""
    (root / DET / "train.json").unlink()
    folder = root / "ILSVRC/ImageSets/DET"
    folder.mkdir(parents=True)
    for k in range(1, len(CLASSES) + 1):
        shown = [f"{name} {int(k != ids[-1])}\n" for name, ids in TRAIN.items() if k in ids]
        (folder / f"train_{k}.txt").write_text("".join([*shown, *(f"{n} -1\n" for n in [*TRAIN][2:] if k < 5)]))


def write_tree(
    root: pathlib.Path, classes: Iterable[str] = ("n03", "n01", "n02"), split: str = "val", suffix: str = ".JPEG"
) -> pathlib.Path:
    """ImageNet's layout: two images of each class in train and one in `split`; no names, no masks."""
    for seed, name in enumerate(classes):
        for k in range(2):
            save(root / "train" / name / f"{k}{suffix}", image(10 * seed + k))
        save(root / split / name / f"0{suffix}", image(10 * seed + 5))
    return root
