"""Measures of single arrays: what an id looks like in a mask, and what an image is known again by."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import cv2
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """What is kept of an image: a hash of its pixels, and a thumbnail with its gradient signs to find its like."""

    digest: bytes
    signs: np.ndarray  # uint64 [4]
    thumb: np.ndarray  # uint8 [32, 32] grey


def picture(image: np.ndarray) -> Picture:
    """The facts of uint8 [H, W, 3]."""
    image = np.ascontiguousarray(image)
    digest = hashlib.blake2b(image, digest_size=16)
    digest.update(str(image.shape).encode())
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    steps = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA)
    return Picture(
        digest=digest.digest(),
        signs=np.packbits(steps[:, 1:] > steps[:, :-1]).view(np.uint64),
        thumb=cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA),
    )


def outline(mask: np.ndarray, value: int) -> bool:
    """Whether an id runs along borders, as void does in PASCAL VOC: thin everywhere, and between all other regions.

    Its pixels are given to the nearest other id; of the borders that then are there, nearly all must lie where it was.
    In PASCAL VOC the void scores 0.97 (thin) and 0.99 (between), and no class of VOC, CamVid or Cityscapes more than
    0.55 in the second.

    Args:
      mask: uint8 [H, W] with at least one other id.
    """
    here = mask == value
    # Beyond the frame counts as the id itself: a band along the frame is not thin by itself.
    padded = cv2.copyMakeBorder(here.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    if np.mean(distance[here] <= max(3.0, 0.01 * np.hypot(*mask.shape))) < 0.8:
        return False
    _, seeds = cv2.distanceTransformWithLabels(here.astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    ids = np.zeros(seeds.max() + 1, np.uint8)
    ids[seeds[~here]] = mask[~here]
    filled = ids[seeds]
    borders = inside = 0
    for near, far in _neighbours():
        border = filled[near] != filled[far]
        borders += np.count_nonzero(border)
        inside += np.count_nonzero(border & (here[near] | here[far]))
    return borders > 0 and inside / borders >= 0.8


def blended(mask: np.ndarray) -> float:
    """The share of border pixels that an interpolation made, 0 where nothing points to one.

    Interpolating ids leaves pixels whose id is strictly between their two neighbours'; in CamVid, VOC and Cityscapes
    at most 0.02 of the border pixels are so, resized bilinearly at least 0.13.

    Args:
      mask: uint8 [H, W].
    """
    borders = between = beyond = 0
    values: set[int] = set()
    for axis in (0, 1):
        low, middle, high = (np.moveaxis(mask, axis, 0)[s] for s in (np.s_[:-2], np.s_[1:-1], np.s_[2:]))
        border = low != high
        rising = (low < middle) & (middle < high)
        inside = rising | ((low > middle) & (middle > high))
        borders += np.count_nonzero(border)
        between += np.count_nonzero(inside)
        beyond += np.count_nonzero(border & (middle != low) & (middle != high) & ~inside)
        values |= set(np.unique(middle[inside]).tolist())
    suspicious = borders >= 50 and between >= 0.08 * borders and between > 1.5 * beyond and len(values) >= 3
    return between / borders if suspicious else 0.0


def _neighbours() -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    yield np.s_[:-1, :], np.s_[1:, :]
    yield np.s_[:, :-1], np.s_[:, 1:]
