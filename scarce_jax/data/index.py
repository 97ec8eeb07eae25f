"""The index of a prepared split: what is known of its examples without reading their records."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from scarce_jax.data.schema import OPTIONAL


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """One entry per example, in the order of the records.

    Attributes:
      ids: example ids.
      tags: uint8 [N, K] multi-hot; all 0 where an example has no tags.
      sizes: int32 [N, 2], height and width of the image.
      has: for each of `schema.OPTIONAL`, bool [N]: which examples have the field.
    """

    ids: tuple[str, ...]
    tags: np.ndarray
    sizes: np.ndarray
    has: Mapping[str, np.ndarray]

    def __post_init__(self):
        count = len(self.ids)
        wrong = [
            f"{name} is {array.dtype} {list(array.shape)}"
            for name, array, dtype, shape in (
                ("tags", self.tags, np.uint8, (count, self.tags.shape[-1])),
                ("sizes", self.sizes, np.int32, (count, 2)),
                *((f"has {field}", self.has[field], np.bool_, (count,)) for field in OPTIONAL),
            )
            if array.dtype != dtype or array.shape != shape
        ]
        if wrong:
            raise ValueError(f"an index of {count} examples: {', '.join(wrong)}")

    def lacking(self) -> dict[str, int]:
        """Field -> number of examples without it, where that is not 0."""
        return {field: int(np.sum(~has)) for field, has in self.has.items() if not has.all()}

    def write(self, path: pathlib.Path) -> None:
        """Writes a compressed npz archive."""
        has = {f"has_{field}": self.has[field] for field in OPTIONAL}
        np.savez_compressed(path, ids=np.array(self.ids, np.str_), tags=self.tags, sizes=self.sizes, **has)

    @classmethod
    def read(cls, path: str | os.PathLike) -> Index:
        """The index that `write` left.

        Raises:
          ValueError: the file is damaged, or no index.
          OSError: it is missing or cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(
                    ids=tuple(archive["ids"].tolist()),
                    tags=archive["tags"],
                    sizes=archive["sizes"],
                    has={field: archive[f"has_{field}"] for field in OPTIONAL},
                )
        except (KeyError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(str(error)) from error


def index_path(directory: pathlib.Path, split: str) -> pathlib.Path:
    """Where a split's index is in the folder of a prepared dataset."""
    return directory / f"index-{split}.npz"
