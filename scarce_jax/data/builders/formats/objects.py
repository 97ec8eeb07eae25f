"""Masks that are drawn from annotated objects, in the order of their list: later ones over earlier ones."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import cv2
import numpy as np

from scarce_jax.data.builders.formats.class_files import behind, read_class_file
from scarce_jax.data.builders.formats.classes import BACKGROUNDS, Classes
from scarce_jax.data.builders.formats.find_classes import class_file
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.decoding import MAX_PIXELS
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import nearest

IGNORED = ("__ignore__", "ignore")
"""Labels of void objects, unless a class has this name."""


def object_classes(folder: pathlib.Path, options: Options, labels: Iterable[str], where: str) -> Classes:
    """The classes of annotated objects; their `source` is `where` if no file lists them.

    They are those of a file of classes, else all labels in alphabetical order. A background for what no object covers
    comes first, unless the file names one, or is a classes.json: without a background there, the rest is void.
    """
    path = class_file(folder, options)
    if path is None:
        return behind(where, sorted({label for label in labels if label not in (*IGNORED, *BACKGROUNDS)}))
    classes = read_class_file(path)
    if classes.background is None and path.suffix.lower() != ".json":
        classes = behind(str(path), list(classes.classes))
    return classes


def index_of(label: str, classes: Classes) -> int:
    """The class index of an object's label, or 255; raises ValueError for an unknown label."""
    if label in classes.classes:
        return classes.classes.index(label)
    if label in IGNORED:
        return IGNORE
    if label in BACKGROUNDS and classes.background is not None:
        return classes.background
    raise ValueError(f"the label {label!r} is no class{nearest(label, classes.classes)}; add it to {classes.source}")


def canvas(size: tuple[int, int], classes: Classes) -> np.ndarray:
    """What no object covers: uint8 [H, W] of the background, or of void without one."""
    height, width = (int(side) for side in size)
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ValueError(f"an image of {width}x{height} pixels, expected 1 to {MAX_PIXELS:,}")
    return np.full((height, width), IGNORE if classes.background is None else classes.background, np.uint8)


def fill_polygon(mask: np.ndarray, points: Iterable[Iterable[float]], value: int) -> None:
    """Fills a polygon of points (x, y), its outline included, in uint8 [H, W]."""
    corners = np.rint(np.array([tuple(point) for point in points], np.float64)).astype(np.int32)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"a polygon of shape {list(corners.shape)}, expected at least 3 points (x, y)")
    cv2.fillPoly(mask, [corners], int(value))


def paste(mask: np.ndarray, region: np.ndarray, corner: tuple[float, float], value: int) -> None:
    """Sets the pixels of a region, bool [h, w], whose upper left corner is at (x, y); what lies outside is cut off."""
    x, y = (int(side) for side in corner)
    top, left = max(y, 0), max(x, 0)
    # A negative end would count from the other side.
    inside = region[top - y : max(mask.shape[0] - y, 0), left - x : max(mask.shape[1] - x, 0)]
    mask[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = value
