"""Drawing COCO's annotations, polygons and run lengths, as one mask of class ids.

Polygons are filled by pycocotools, whose rule others measure by. Run lengths are decoded here: pycocotools (2.0.11)
accepts text that was cut off, and then returns memory that nobody has written as part of the mask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from scarce_jax.data.schema import IGNORE

Region = Sequence[Sequence[float]] | Mapping[str, Any]
"""Polygons, each a flat list x0, y0, x1, y1, ... in pixels from the upper left corner of the image; or run lengths
{"size": [H, W], "counts": list or str}."""


FARTHEST = 1e5
"""Coordinates beyond this are an error; pycocotools needs memory for every pixel of an outline."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instance:
    """One annotated object.

    Attributes:
      label: class index.
      region: bool [H, W].
      crowd: whether it is a roughly outlined group.
    """

    label: int
    region: np.ndarray
    crowd: bool = False


def draw(instances: Iterable[Instance], size: tuple[int, int], background: int = 0) -> np.ndarray:
    """Draws all instances of an image into one mask, uint8 [H, W].

    Crowds become 255. Smaller objects are drawn over larger ones, because an object on or in another one is usually the
    smaller of the two.
    """
    mask = np.full(size, background, np.uint8)
    for instance in sorted(instances, key=lambda one: (not one.crowd, -int(one.region.sum()))):
        mask[instance.region] = IGNORE if instance.crowd else instance.label
    return mask


def fill(region: Region, size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels of an annotation, bool [H, W]; of several polygons their union.

    Raises:
      ValueError: `region` is not a region, or does not fit the size.
    """
    if isinstance(region, Mapping):
        return decode_runs(region, size)
    if not isinstance(region, Sequence) or isinstance(region, str):
        raise ValueError(f"a region is {type(region).__name__}, expected polygons or run lengths")
    # Fewer than three points enclose nothing; pycocotools takes two for the corners of a box.
    polygons = [points for points in map(_checked_polygon, region) if len(points) >= 6]
    if not polygons:
        return np.zeros(size, bool)
    height, width = (int(side) for side in size)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)


def _checked_polygon(polygon: Sequence[float]) -> list[float]:
    points = np.asarray(polygon, np.float64)
    if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
        raise ValueError(f"a polygon has {points.size} numbers {str(polygon)[:40]}, expected x and y of every point")
    if (np.abs(points) > FARTHEST).any():
        raise ValueError(f"a polygon has the coordinate {np.abs(points).max():g}, expected pixels of the image")
    return points.tolist()


def decode_runs(runs: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Decodes run lengths to bool [H, W].

    Args:
      runs: "counts" are the lengths of the runs down the columns, alternately off and on, as a list or as COCO's
        compressed text; "size" is [H, W].
      size: the expected size (H, W).

    Raises:
      ValueError: the run lengths are damaged, or are for another size.
    """
    stated = tuple(runs.get("size", ()))
    if stated != tuple(size):
        raise ValueError(f"run lengths are for an image of size {list(stated)}, expected {list(size)}")
    counts = runs.get("counts")
    lengths = np.asarray(_uncompressed(counts) if isinstance(counts, str | bytes) else counts)
    if lengths.ndim != 1 or lengths.dtype.kind != "i" or (lengths < 0).any() or lengths.sum() != size[0] * size[1]:
        raise ValueError(f"run lengths do not add up to the {size[0] * size[1]} pixels of the image")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size[1], size[0]).T


def _uncompressed(text: str | bytes) -> list[int]:
    """Decodes COCO's compressed text of run lengths.

    Each number is a sequence of characters, from "0" on, with 5 bits each, the lowest first. The sixth bit of a
    character marks that more follow; the highest of the five bits of the last one is the sign. From the fourth number
    on, the difference to the length two before is stored.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError(f"run lengths hold the character {chr(character)!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths end within a number")
    return lengths
