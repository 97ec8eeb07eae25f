"""Small images and masks of discs, and folders of them."""

from __future__ import annotations

import pathlib

import cv2
import numpy as np
from PIL import Image

from scarce_jax.doctor import check_folders

HEIGHT, WIDTH, CLASSES = 96, 128, 4
NAMES = ["train/a", "train/b", "train/c", "train/d", "val/e", "val/f", "val/g"]
COLOURS = np.array([(0, 0, 0), (250, 10, 10), (10, 250, 10), (10, 10, 250)], np.uint8)


def picture(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return cv2.resize(blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def labels(seed: int) -> np.ndarray:
    """All classes: 0 behind, three discs in front."""
    draw = np.random.default_rng(seed)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for k in (1, 2, 3):
        centre = (int(draw.integers(20, 30)) + 38 * (k - 1), int(draw.integers(30, 60)))
        cv2.circle(mask, centre, int(draw.integers(16, 22)), k, -1)
    return mask


def outlined(mask: np.ndarray, void: int) -> np.ndarray:
    """The mask with a line of void along every border, as PASCAL VOC has it."""
    kernel = np.ones((5, 5), np.uint8)
    return np.where(cv2.dilate(mask, kernel) != cv2.erode(mask, kernel), void, mask).astype(mask.dtype)


def check(folder: pathlib.Path, classes: int | None = CLASSES, coarse: bool = True, **options):
    return check_folders(
        folder / "images", folder / "masks", folder / "coarse" if coarse else None, classes=classes, **options
    )


def mask_of(folder: pathlib.Path, name: str = "train/b") -> pathlib.Path:
    return folder / "masks" / f"{name}.png"


def image_of(folder: pathlib.Path, name: str = "train/b") -> pathlib.Path:
    return folder / "images" / f"{name}.jpg"


def redraw(folder: pathlib.Path, change, kind: str = "masks") -> None:
    """Changes every mask of a kind."""
    for path in (folder / kind).rglob("*.png"):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def rewrite(path: pathlib.Path, change) -> pathlib.Path:
    Image.fromarray(change(np.asarray(Image.open(path)).copy())).save(path)
    return path


def only(findings, kind: str):
    assert [finding.kind for finding in findings] == [kind], "\n".join(map(str, findings))
    return findings[0]
