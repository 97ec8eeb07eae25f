"""What a builder counts of a split while it writes it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from scarce_jax.data.coarse import CoarseMeter, CoarseQuality
from scarce_jax.data.schema import IGNORE, OPTIONAL


class Tally:
    """Counts the examples of one split.

    Attributes:
      lacking: for each of `schema.OPTIONAL` the ids that do not have it, in order.
      images: int64 [K], images that show a class, by their fine mask or their tags.
      pixels: int64 [K], pixels of a class in fine masks.
    """

    def __init__(self, num_classes: int):
        self.lacking: dict[str, list[str]] = {field: [] for field in OPTIONAL}
        self.images = np.zeros(num_classes, np.int64)
        self.pixels = np.zeros(num_classes, np.int64)
        self._meter = CoarseMeter(num_classes)
        self._content = hashlib.sha256()

    def add(
        self,
        example_id: str,
        image: bytes,
        fine: np.ndarray | None,
        coarse: np.ndarray | None,
        tags: np.ndarray | None,
    ) -> None:
        """Adds one example: masks uint8 [H, W], tags uint8 [K], None for what it lacks."""
        labels = {"fine": fine, "coarse": coarse, "tags": tags}
        for field, value in labels.items():
            if value is None:
                self.lacking[field].append(example_id)
        shown = np.zeros(len(self.images), bool) if tags is None else tags > 0
        if fine is not None:
            counts = np.bincount(fine[fine != IGNORE], minlength=len(self.pixels))
            self.pixels += counts
            shown |= counts > 0
            if coarse is not None:
                self._meter.add(fine, coarse)
        self.images += shown
        parts = (example_id.encode(), image, *(b"" if x is None else x.tobytes() for x in labels.values()))
        for part in parts:
            self._content.update(len(part).to_bytes(8, "little") + part)

    @property
    def content(self) -> bytes:
        """Hash of everything that was added, in its order."""
        return self._content.digest()

    def quality(self) -> CoarseQuality:
        """How good the coarse masks are where there is a fine one too."""
        return self._meter.quality()

    def facts(self) -> dict[str, Any]:
        """JSON values for metadata.json."""
        return {
            "lacking": {field: ids for field, ids in self.lacking.items() if ids},
            "images": self.images.tolist(),
            "pixels": self.pixels.tolist(),
        }
