"""Source folders in the layouts of VOC, SBD and COCO, with few tiny images."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy.io
from PIL import Image

from scarce_jax.data.datasets import VOC

SIZE = (20, 24)
TRAIN, VAL, GROWN = ("2007_000001", "2007_000002"), ("2007_000003",), ("2008_000004", "2008_000005")
SHOWN = {
    "2007_000001": ("cat", "sofa"), "2007_000002": ("person",), "2007_000003": ("dog",),
    "2008_000004": ("horse", "person"), "2008_000005": ("car",),
}  # fmt: skip
"""Example -> classes of its mask."""


def image(seed: int) -> np.ndarray:
    """uint8 [20, 24, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def mask(name: str, void: bool = True) -> np.ndarray:
    """uint8 [20, 24]: background, a block of 5 rows for each class shown, and a void row above."""
    found = np.zeros(SIZE, np.uint8)
    for k, label in enumerate(SHOWN[name]):
        found[3 + 6 * k : 8 + 6 * k, 4:20] = VOC.classes.index(label)
    if void:
        found[:2] = 255
    return found


def save_palette(path: pathlib.Path, ids: np.ndarray) -> None:
    """A palette PNG, as VOC's masks are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids)
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    assert picture.mode == "P"
    picture.save(path)


def save_sbd(path: pathlib.Path, ids: np.ndarray) -> None:
    """A MAT file, as SBD's masks are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"GTcls": {"Segmentation": ids, "CategoriesPresent": np.unique(ids), "Boundaries": [[1]]}})


def save_list(root: pathlib.Path, name: str, ids: Iterable[str]) -> None:
    path = root / "ImageSets/Segmentation" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{one}\n" for one in ids))


def save_objects(root: pathlib.Path, name: str, labels: Sequence[str]) -> None:
    """Annotations/NAME.xml; a part of an object has a name too."""
    objects = [
        f"<object><name>{label}</name><difficult>1</difficult><part><name>head</name></part></object>"
        for label in (*labels, *labels)
    ]
    path = root / "Annotations" / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{name}.jpg</filename>{''.join(objects)}</annotation>")


def write_voc(root: pathlib.Path, tags: Mapping[str, Sequence[str]] | None = None) -> pathlib.Path:
    """VOC alone: images of SHOWN, lists train and val with palette masks; `tags` as Annotations."""
    (root / "JPEGImages").mkdir(parents=True)
    for seed, name in enumerate(SHOWN):
        Image.fromarray(image(seed)).save(root / "JPEGImages" / f"{name}.jpg")
    for split, ids in (("train", TRAIN), ("val", VAL)):
        save_list(root, split, ids)
        for name in ids:
            save_palette(root / "SegmentationClass" / f"{name}.png", mask(name))
    for name, labels in (tags or {}).items():
        save_objects(root, name, labels)
    return root


def write_coco(
    root: pathlib.Path, split: str, shown: Mapping[str, Sequence[Mapping]], year: int = 2017
) -> pathlib.Path:
    """COCO: an image for each name of `shown`, with its annotations (category name and the rest)."""
    names = ["person", "truck", "bowl", "apple", "tv", "kite"]
    ids = dict(zip(names, (1, 8, 51, 53, 72, 38), strict=True))
    (root / f"{split}{year}").mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    annotations = []
    for number, (name, found) in enumerate(shown.items()):
        Image.fromarray(image(number)).save(root / f"{split}{year}" / f"{name}.jpg")
        for one in found:
            rest = {key: value for key, value in one.items() if key != "name"}
            annotations.append({"id": len(annotations), "image_id": number, "category_id": ids[one["name"]], **rest})
    content = {
        "images": [
            {"id": k, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]} for k, name in enumerate(shown)
        ],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for name, k in ids.items()],
    }
    (root / f"annotations/instances_{split}{year}.json").write_text(json.dumps(content))
    return root
