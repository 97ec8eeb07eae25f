"""What the reader of a format finds in a source folder, in the same form for every format."""

from __future__ import annotations

import abc
import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from scarce_jax.data.builders.files import to_indices
from scarce_jax.data.builders.formats.classes import Classes
from scarce_jax.data.decoding import check_lossless, opened
from scarce_jax.data.images import read_ids, read_image
from scarce_jax.data.palettes import Palettes, used_colours
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError, plural


class Mask(abc.ABC):
    """A mask of one image: a file, or what is drawn from an annotation.

    Attributes:
      path: the file that holds it.
    """

    path: pathlib.Path

    @abc.abstractmethod
    def read(self, palettes: Palettes | None = None) -> np.ndarray:
        """Reads or draws it: uint8 [H, W], class index or 255 = void.

        Args:
          palettes: the palettes of earlier masks of ids, which must agree; None does not compare them.

        Raises:
          InputError: a file is damaged, or has an id, a colour or a shape that means no class.
        """

    def holds_indices(self) -> bool:
        """Whether `path` is an image file whose ids are class indices as they stand."""
        return False

    def __str__(self) -> str:
        return str(self.path)


@dataclasses.dataclass(frozen=True)
class FileMask(Mask):
    """An image file of ids, or of colours where the classes have colours."""

    path: pathlib.Path
    classes: Classes

    def read(self, palettes: Palettes | None = None) -> np.ndarray:
        if self.classes.colours and self._mode() == "RGB":
            return self._by_colour()
        ids, palette = read_ids(self.path)
        used = np.unique(ids).tolist()
        colours = None if palette is None else self._palette_indices(used, palette)
        if colours is None and palette is not None and palettes is not None:
            palettes.add(self.path, used_colours(used, palette))
        return to_indices(ids, self.path, "", self.classes.indices if colours is None else colours)

    def holds_indices(self) -> bool:
        if not self.classes.plain or not self.classes.colours:
            return self.classes.plain
        mode = self._mode()
        if mode == "P":
            with contextlib.suppress(InputError):
                ids, palette = read_ids(self.path)
                return self._palette_indices(np.unique(ids).tolist(), palette) is None
        return mode != "RGB"

    def _mode(self) -> str:
        """ "RGB" for a file of colours, "P" for one with a palette, "" for all others."""
        with contextlib.suppress(Exception), opened(self.path) as image:  # `read_ids` says what is wrong.
            check_lossless(image, self.path)
            if image.mode in ("RGB", "RGBA", "P"):
                return image.mode[:3]
        return ""

    def _palette_indices(self, used: list[int], palette: np.ndarray) -> dict[int, int] | None:
        """Palette index -> class index; None unless all colours in use, void (255) apart, are those of classes."""
        colours = {k: tuple(palette[k].tolist()) for k in used if k != IGNORE and k < len(palette)}
        known = self.classes.colours or {}
        if not colours or not all(colour in known for colour in colours.values()):
            return None
        return {k: known[colour] for k, colour in colours.items()}

    def _by_colour(self) -> np.ndarray:
        rgb = read_image(self.path).astype(np.int64)
        codes = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
        values, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        table = {(r << 16) | (g << 8) | b: index for (r, g, b), index in self.classes.colours.items()}
        unknown = [(int(n), int(v)) for v, n in zip(values, counts, strict=True) if int(v) not in table]
        if unknown:
            pixels, code = max(unknown)
            known = ", ".join("({},{},{})".format(*colour) for colour in list(self.classes.colours)[:24])
            more = f" and {plural(len(unknown) - 1, 'other colour')}" if len(unknown) > 1 else ""
            raise InputError(
                f"{self.path}: the colour ({code >> 16},{code >> 8 & 255},{code & 255}){more} is in the mask "
                f"({pixels} pixels of it), expected {known}; add it to {self.classes.source}, or export the mask again "
                "without blending"
            )
        return np.array([table[int(v)] for v in values], np.uint8)[inverse.reshape(codes.shape)]


def reason(error: Exception) -> str:
    """What an error of reading an annotation says in words; its type is left out where the text speaks for itself."""
    if isinstance(error, KeyError):
        return f"it has no field {error}"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


@dataclasses.dataclass(frozen=True)
class DrawnMask(Mask):
    """What is drawn from an annotation.

    Attributes:
      path: the file of the annotation.
      of: which of its annotations, for messages.
      draw: returns uint8 [H, W], class index or 255.
    """

    path: pathlib.Path
    of: str
    draw: Callable[[], np.ndarray]

    def read(self, palettes: Palettes | None = None) -> np.ndarray:
        try:
            return self.draw()
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise InputError(f"{self}: cannot be drawn ({reason(error)}); export it again") from error

    def __str__(self) -> str:
        return f"{self.path} ({self.of})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One image and what belongs to it.

    Attributes:
      name: unique in its split; the id of the example is SPLIT/NAME.
      image: the image file.
      tags: uint8 [K], multi-hot; None where the source has none.
    """

    name: str
    image: pathlib.Path
    fine: Mask | None = None
    coarse: Mask | None = None
    tags: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The content of a source folder.

    Attributes:
      format: name of its format.
      classes: the classes, and the ids or colours that mean them.
      splits: split -> its images.
      has_coarse: whether coarse masks come from the source.
      has_tags: whether tags come from the source.
      notes: what was left out, or decided, in words.
    """

    format: str
    classes: Classes
    splits: Mapping[str, list[Item]]
    has_coarse: bool = False
    has_tags: bool = False
    notes: tuple[str, ...] = ()

    def items(self) -> Iterator[Item]:
        """The images of all splits."""
        for items in self.splits.values():
            yield from items

    def describe(self) -> tuple[str, ...]:
        """What `prepare` would make of it, in sentences."""
        counts = []
        for split, items in self.splits.items():
            parts = [plural(len(items), "image"), plural(sum(item.fine is not None for item in items), "mask")]
            coarse = sum(item.coarse is not None for item in items)
            parts += [plural(coarse, "coarse mask")] if coarse else []
            counts.append(f"{split} {', '.join(parts)}")
        return (
            f"format {self.format}; prepare makes {'; '.join(counts)}",
            self.classes.describe(),
            *self.notes,
        )


def by_name(items: list[Item], where: pathlib.Path) -> list[Item]:
    """Returns the items sorted by name; raises InputError if a name is there twice."""
    repeated = [name for name, count in collections.Counter(item.name for item in items).items() if count > 1]
    if repeated:
        files = ", ".join(str(item.image) for item in items if item.name == repeated[0])
        raise InputError(f"{where}: several images have the name {repeated[0]!r} ({files}); rename one of them")
    return sorted(items, key=lambda item: item.name)
