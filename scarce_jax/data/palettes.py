"""The palettes of mask files, which must agree within a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import numpy as np

from scarce_jax.data.image_files import FileError
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import printable


class Palettes:
    """The colours of the ids in the palette masks of one dataset, which must be the same in all files.

    Some tools write a palette of its own to each file, in which an id is another class from file to file.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[tuple[int, ...], str | os.PathLike]] = {}

    def add(self, path: str | os.PathLike, colours: Mapping[int, tuple[int, int, int]]) -> None:
        """Adds a mask.

        Args:
          path: the file.
          colours: its ids and their colours, of `used_colours`.

        Raises:
          FileError: an id had another colour in an earlier file.
        """
        for value, colour in colours.items():
            known, first = self._known.setdefault(value, (colour, path))
            if known != colour:
                found = f"in its palette id {value} is the colour {colour}, in {printable(first)} it is {known}"
                advice = (
                    "if a class has a colour, convert the colours to ids; if the ids are right in all files, save them "
                    "with one palette: mask = Image.open(path); mask.putpalette(COLOURS); mask.save(path)"
                )
                raise FileError("palettes-differ", path, found, "one palette for all masks", advice)


def used_colours(ids: Iterable[int], palette: np.ndarray | None) -> dict[int, tuple[int, int, int]]:
    """The colours of the ids that a mask has, without void (255); {} if its palette is missing or mere grey levels."""
    if palette is None or (palette == np.arange(len(palette), dtype=np.uint8)[:, None]).all():
        return {}
    return {int(k): tuple(palette[k].tolist()) for k in ids if k < len(palette) and k != IGNORE}
