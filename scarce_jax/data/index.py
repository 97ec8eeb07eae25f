"""The index of a prepared split: facts of its examples that are known without reading their records."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from scarce_jax.data.arrays import read_arrays, write_arrays
from scarce_jax.data.schema import OPTIONAL


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """One entry per example, in the order of the records.

    Attributes:
      ids: example ids.
      tags: uint8 [N, K], multi-hot; all 0 for examples without tags.
      sizes: int32 [N, 2], height and width of the image.
      has: field of `schema.OPTIONAL` -> bool [N], which examples have it.

    Raises:
      ValueError: an array has another shape or dtype.
    """

    ids: tuple[str, ...]
    tags: np.ndarray
    sizes: np.ndarray
    has: Mapping[str, np.ndarray]

    def __post_init__(self):
        count = len(self.ids)
        self._check("tags", self.tags, np.uint8, (count, self.tags.shape[-1]))
        self._check("sizes", self.sizes, np.int32, (count, 2))
        for field in OPTIONAL:
            self._check(f"has_{field}", self.has[field], np.bool_, (count,))

    def _check(self, name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)} for "
                f"{len(self.ids)} examples"
            )

    def lacking(self) -> dict[str, int]:
        """Field -> number of examples without it; only fields that some example lacks."""
        return {field: int(np.sum(~has)) for field, has in self.has.items() if not has.all()}

    def write(self, path: pathlib.Path) -> None:
        """Writes the index as a file of arrays."""
        has = {f"has_{field}": self.has[field] for field in OPTIONAL}
        write_arrays(path, {"ids": np.array(self.ids, np.str_), "tags": self.tags, "sizes": self.sizes, **has})

    @classmethod
    def read(cls, path: str | os.PathLike) -> Index:
        """Reads an index that `write` wrote.

        Raises:
          ValueError: the file is damaged, or not an index.
          OSError: the file is missing or cannot be read.
        """
        arrays = read_arrays(path)
        try:
            return cls(
                ids=tuple(arrays["ids"].tolist()),
                tags=arrays["tags"],
                sizes=arrays["sizes"],
                has={field: arrays[f"has_{field}"] for field in OPTIONAL},
            )
        except KeyError as error:
            raise ValueError(f"it has no {error}") from error


def index_path(directory: pathlib.Path, split: str) -> pathlib.Path:
    """Path of a split's index in the folder of a prepared dataset."""
    return directory / f"index-{split}.npz"
