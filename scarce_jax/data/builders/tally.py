"""Statistics of a split, collected while its examples are written."""

from __future__ import annotations

import hashlib

import numpy as np

from scarce_jax.data.coarse import CoarseMeter
from scarce_jax.data.index import Index
from scarce_jax.data.schema import IGNORE, OPTIONAL


class Tally:
    """Indexes and counts the examples of one split.

    Attributes:
      images: int64 [K], number of images that show a class, by their fine mask or their tags.
      pixels: int64 [K], number of pixels of a class in fine masks.
      meter: compares coarse with fine masks.
      files: hash of an encoded image -> id of the first example that has it.
    """

    def __init__(self, num_classes: int):
        self.images = np.zeros(num_classes, np.int64)
        self.pixels = np.zeros(num_classes, np.int64)
        self.files: dict[bytes, str] = {}
        self._ids: dict[str, None] = {}
        self._tags: list[np.ndarray] = []
        self._sizes: list[tuple[int, int]] = []
        self._has: dict[str, list[bool]] = {field: [] for field in OPTIONAL}
        self.meter = CoarseMeter(num_classes)
        self._content = hashlib.sha256()

    def __contains__(self, example_id: str) -> bool:
        return example_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(
        self,
        example_id: str,
        image: bytes,
        size: tuple[int, int],
        fine: np.ndarray | None,
        coarse: np.ndarray | None,
        tags: np.ndarray | None,
    ) -> None:
        """Adds an example.

        Args:
          example_id: unique in the split.
          image: the encoded image.
          size: (H, W) of the image.
          fine: uint8 [H, W], or None if the example has none.
          coarse: likewise.
          tags: uint8 [K], or None.
        """
        labels = {"fine": fine, "coarse": coarse, "tags": tags}
        self._ids[example_id] = None
        self.files.setdefault(hashlib.blake2b(image, digest_size=16).digest(), example_id)
        self._tags.append(np.zeros(len(self.images), np.uint8) if tags is None else tags)
        self._sizes.append(size)
        for field, value in labels.items():
            self._has[field].append(value is not None)
        shown = np.zeros(len(self.images), bool) if tags is None else tags > 0
        if fine is not None:
            counts = np.bincount(fine[fine != IGNORE], minlength=len(self.pixels))
            self.pixels += counts
            shown |= counts > 0
            if coarse is not None:
                self.meter.add(fine, coarse)
        self.images += shown
        parts = (example_id.encode(), image, *(b"" if x is None else x.tobytes() for x in labels.values()))
        for part in parts:
            self._content.update(len(part).to_bytes(8, "little") + part)

    @property
    def content(self) -> bytes:
        """SHA-256 of all examples, in order."""
        return self._content.digest()

    def index(self) -> Index:
        """Returns the index of the examples added so far."""
        return Index(
            ids=tuple(self._ids),
            tags=np.stack(self._tags),
            sizes=np.array(self._sizes, np.int32),
            has={field: np.array(has) for field, has in self._has.items()},
        )
