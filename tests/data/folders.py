"""A source folder of the dataset `folder`, as a user lays it out: most images have no mask."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

SIZE = (24, 32)
NAMES = ("background", "cat", "dog")


def image(seed: int) -> np.ndarray:
    """uint8 [24, 32, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def mask(seed: int) -> np.ndarray:
    """uint8 [24, 32]: background and one animal, and a void row with the id 9."""
    found = np.zeros(SIZE, np.uint8)
    found[4:20, 6:26] = 1 + seed % 2
    found[:2] = 9
    return found


def coarse(seed: int) -> np.ndarray:
    """uint8 [24, 32]: part of the animal, 255 elsewhere."""
    found = np.full(SIZE, 255, np.uint8)
    found[8:16, 10:20] = 1 + seed % 2
    return found


def write(
    root: pathlib.Path,
    images: int = 6,
    fine: Sequence[int] = (0, 2),
    coarsely: Sequence[int] | None = (0, 1),
    splits: Sequence[str] = ("train", "val"),
) -> pathlib.Path:
    """Images "0", "1", ... in every split; `fine` and `coarsely` number those with masks, None makes no folder."""
    root.mkdir(parents=True)
    content = {"classes": list(NAMES), "background": "background", "ignore": 9}
    (root / "classes.json").write_text(json.dumps(content))
    for s, split in enumerate(splits):
        for kind in ("images", "masks", *([] if coarsely is None else ["coarse"])):
            (root / split / kind).mkdir(parents=True)
        for k in range(images):
            Image.fromarray(image(10 * s + k)).save(root / split / "images" / f"{k}.png")
        for k in fine:
            Image.fromarray(mask(k)).save(root / split / "masks" / f"{k}.png")
        for k in coarsely or ():
            Image.fromarray(coarse(k)).save(root / split / "coarse" / f"{k}.png")
    return root
