"""Simulating coarse masks from fine ones, and measuring the quality of coarse masks.

A coarse mask is what an annotator draws in a few minutes: a loose polygon well inside each larger object, and nothing
on small objects. In Cityscapes' own coarse masks, 97% of the labelled pixels are right, and the mIoU of the mask as a
prediction is 0.478. The defaults here aim at the same mIoU, because a better mask would leave little to detail.
"""

from __future__ import annotations

import dataclasses
import math
import zlib

import cv2
import numpy as np

from scarce_jax.data.figures import ratio, summarise
from scarce_jax.data.schema import IGNORE


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoarseSettings:
    """Parameters of `simulate_coarse`. Lengths are fractions of the image diagonal (600 px at 480x360).

    Attributes:
      erosion: diameter of the disc that erodes every region.
      simplification: largest distance between the outline of a region and its polygon.
      min_area: smallest area of an eroded region that is kept, as a fraction of the squared diagonal.
      jitter: largest displacement of a polygon's vertices, in x and in y; drawn uniformly.
    """

    erosion: float = 12 / 600
    simplification: float = 8 / 600
    min_area: float = 200 / 600**2
    jitter: float = 10 / 600


def example_rng(dataset: str, example_id: str) -> np.random.Generator:
    """Returns the random generator for the coarse mask of an example; it depends on the two names alone."""
    return np.random.default_rng(zlib.crc32(f"{dataset}/{example_id}".encode()))


def simulate_coarse(
    fine: np.ndarray, *, rng: np.random.Generator, settings: CoarseSettings = CoarseSettings()
) -> np.ndarray:
    """Draws loose single-class polygons inside the regions of a fine mask.

    The connected regions of each class are eroded, small ones are dropped, and the others become polygons (with their
    holes) whose vertices are displaced at random. Larger polygons are filled first, so that small objects inside large
    ones remain.

    Args:
      fine: uint8 [H, W], class index or 255 = void.
      rng: draws the displacements; see `example_rng`.
      settings: how loosely the polygons are drawn.

    Returns:
      uint8 [H, W], class index or 255 = void. Void pixels of `fine` are void.

    Raises:
      ValueError: `fine` has another dtype or shape.
    """
    if fine.dtype != np.uint8 or fine.ndim != 2:
        raise ValueError(f"fine must be uint8 [H, W], got {fine.dtype} {list(fine.shape)}")
    diagonal = math.hypot(*fine.shape)
    size = max(1, round(settings.erosion * diagonal))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))

    drawn: list[tuple[float, int, list[np.ndarray]]] = []
    for label in np.unique(fine[fine != IGNORE]):
        inner = cv2.erode((fine == label).astype(np.uint8), disc)
        contours, hierarchy = cv2.findContours(inner, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for outer, (_, _, child, parent) in enumerate(hierarchy[0] if contours else ()):
            if parent >= 0:
                continue
            rings, area = [contours[outer]], cv2.contourArea(contours[outer])
            while child >= 0:
                rings.append(contours[child])
                area -= cv2.contourArea(contours[child])
                child = hierarchy[0][child][0]
            if area < settings.min_area * diagonal**2:
                continue
            polygons = [cv2.approxPolyDP(ring, settings.simplification * diagonal, True) for ring in rings]
            polygons = [_jittered(p, settings.jitter * diagonal, rng) for p in polygons if len(p) >= 3]
            if polygons:
                drawn.append((area, int(label), polygons))

    coarse = np.full_like(fine, IGNORE)
    for _, label, polygons in sorted(drawn, key=lambda d: -d[0]):
        cv2.fillPoly(coarse, polygons, label)
    coarse[fine == IGNORE] = IGNORE
    return coarse


def _jittered(polygon: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    return np.rint(polygon + (2 * rng.random(polygon.shape) - 1) * jitter).astype(np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoarseQuality:
    """Agreement of coarse with fine masks over a set of images, 0..1; None if there is nothing to compare.

    Attributes:
      coverage: share of the pixels with a fine label that have a coarse label.
      precision: share of these whose coarse label is right.
      miou: mean IoU of the coarse mask as a prediction. A void pixel is a false negative of its class and a false
        positive of none; classes in neither mask are left out.
    """

    coverage: float | None
    precision: float | None
    miou: float | None


class CoarseMeter:
    """Accumulates `CoarseQuality` over images."""

    def __init__(self, num_classes: int):
        # [fine class, coarse class or void]
        self._confusion = np.zeros((num_classes, num_classes + 1), np.int64)

    def add(self, fine: np.ndarray, coarse: np.ndarray) -> None:
        """Adds an image: two masks uint8 [H, W]; pixels where `fine` is 255 do not count."""
        if fine.shape != coarse.shape:
            raise ValueError(f"fine is {list(fine.shape)}, coarse is {list(coarse.shape)}: shapes must be equal")
        classes = len(self._confusion)
        valid = fine != IGNORE
        truth = fine[valid].astype(np.int64)
        prediction = np.minimum(coarse[valid], classes)
        counts = np.bincount(truth * (classes + 1) + prediction, minlength=self._confusion.size)
        self._confusion += counts.reshape(self._confusion.shape)

    def quality(self) -> CoarseQuality:
        total, labelled = self._confusion.sum(), self._confusion[:, :-1].sum()
        return CoarseQuality(
            coverage=ratio(labelled, total),
            precision=ratio(np.trace(self._confusion), labelled),
            miou=summarise(self._confusion, [str(k) for k in range(len(self._confusion))])["miou"],
        )
