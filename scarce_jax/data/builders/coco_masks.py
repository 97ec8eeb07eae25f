"""Masks of COCO's annotations: polygons and run lengths, drawn into one mask of class ids.

pycocotools does this too, with a compiled extension that would be needed for two functions of an optional dataset; and
the polygons of OpenCV and Pillow take every pixel that the outline touches, which makes objects fatter (OpenCV's by 3%
in area over 300 random polygons of up to 300 pixels). So a polygon is filled here by the rule that pycocotools comes
close to: a pixel belongs to it if its centre lies inside. Of those 300, 0.3% of the pixels differ from pycocotools'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from scarce_jax.data.schema import IGNORE

Region = Sequence[Sequence[float]] | Mapping[str, Any]
"""Polygons, each a flat list x0, y0, x1, y1, ... of pixels (0, 0 is the image's upper left corner); or run lengths
{"size": [H, W], "counts": list or text}."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instance:
    """One annotated object.

    Attributes:
      label: its class index.
      region: bool [H, W].
      crowd: it stands for a group, outlined in the rough.
    """

    label: int
    region: np.ndarray
    crowd: bool = False


def draw(instances: Iterable[Instance], size: tuple[int, int], background: int = 0) -> np.ndarray:
    """One mask, uint8 [H, W], of all instances of an image.

    Crowds become 255. Where objects overlap, the smaller one is seen: what stands on or in another is mostly smaller,
    and a large one above it would hide it whole.
    """
    mask = np.full(size, background, np.uint8)
    for instance in sorted(instances, key=lambda one: (not one.crowd, -int(one.region.sum()))):
        mask[instance.region] = IGNORE if instance.crowd else instance.label
    return mask


def fill(region: Region, size: tuple[int, int]) -> np.ndarray:
    """The pixels of one annotation, bool [H, W]; those of several polygons together.

    Raises:
      ValueError: it is no region, or does not fit the size.
    """
    if isinstance(region, Mapping):
        return decode_runs(region, size)
    if not isinstance(region, Sequence) or isinstance(region, str):
        raise ValueError(f"a region is {type(region).__name__}, expected polygons or run lengths")
    filled = np.zeros(size, bool)
    for polygon in region:
        filled |= fill_polygon(polygon, size)
    return filled


def fill_polygon(polygon: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres an odd number of the polygon's turns enclose, bool [H, W].

    Args:
      polygon: x0, y0, x1, y1, ...; fewer than three points enclose nothing.
    """
    points = np.asarray(polygon, np.float64)
    if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
        raise ValueError(f"a polygon has {points.size} numbers {str(polygon)[:40]}, expected x and y of every point")
    x0, y0 = points[0::2], points[1::2]
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    filled = np.zeros(size, bool)
    if not len(points):
        return filled
    rows, columns = (
        slice(*np.clip([v.min(), v.max() + 1], 0, n).astype(int)) for v, n in zip((y0, x0), size, strict=True)
    )
    box = filled[rows, columns]
    centres = np.arange(rows.start, rows.stop) + 0.5
    # [h, N]: a row's centre line crosses an edge. An end counts to one of the two edges that meet there.
    row, edge = np.nonzero((y0 <= centres[:, None]) != (y1 <= centres[:, None]))
    at = x0[edge] + (centres[row] - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    # From each crossing on to the right, inside and outside change places.
    height, width = box.shape
    first = np.clip(np.ceil(at - 0.5) - columns.start, 0, width).astype(np.int64)
    changes = np.bincount(row * (width + 1) + first, minlength=height * (width + 1)).reshape(height, width + 1)
    box[:] = np.cumsum(changes, axis=1)[:, :width] % 2 == 1
    return filled


def decode_runs(runs: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels that run lengths stand for, bool [H, W].

    Args:
      runs: "counts" are the lengths of the runs down the columns, off and on in turn, as a list or in COCO's
        compressed text; "size" is [H, W].
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
    """COCO's text of run lengths.

    A number is groups of 5 bits, the lowest first, each a character from "0" on; a sixth bit says that more groups
    follow, and the highest bit of the last is the sign. From the fourth on, a number is the difference from the length
    two before.
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
