"""The data of the label doctor: the examples, the content of their files, and what the masks should hold."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from scarce_jax.data.builders.files import ranges
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.findings import Finding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """The files of one example.

    Attributes:
      split: empty where loose folders name no split.
      image, mask, coarse: paths of the files; for a prepared dataset, their names in messages. None where missing.
      tags: class indices, None where the tags are not known.
    """

    split: str
    name: str
    image: object
    mask: object = None
    coarse: object = None
    tags: frozenset[int] | None = None


@dataclasses.dataclass(frozen=True)
class MaskFacts:
    """What the rules need to know about a mask.

    Attributes:
      file: its name in messages.
      counts: id -> number of pixels.
      outlines: for 0 and the highest class id, whether `pixels.outline` holds; empty where it was not measured.
      colours: id -> colour in the mask's palette; empty without one. See `palettes.used_colours`.
    """

    file: object
    counts: dict[int, int]
    outlines: dict[int, bool]
    colours: dict[int, tuple[int, int, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(kw_only=True)
class Facts:
    """What was read from the files of one example.

    Attributes:
      faults: the faults of single files.
      digest: a hash of the image's pixels, None if it cannot be read.
      fine, coarse: None if the mask is missing or unreadable.
      colours: file of an RGB mask -> [(pixels, colour)], or None where it has more than `examine.MAX_COLOURS`.
      labelled: number of pixels with both a coarse and a fine label.
      wrong: coarse id -> number of labelled pixels with another fine label.
    """

    example: Example
    faults: list[Finding] = dataclasses.field(default_factory=list)
    digest: bytes | None = None
    fine: MaskFacts | None = None
    coarse: MaskFacts | None = None
    colours: dict[object, list[tuple[int, tuple[int, int, int]]] | None] = dataclasses.field(default_factory=dict)
    labelled: int = 0
    wrong: dict[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """What the masks should hold.

    Attributes:
      names: the class names; None where the number of classes is not known.
      background: index of the background class, or None.
      ignore: ids of void pixels besides 255.
      settable: whether the user can declare another void id with `--ignore`.
    """

    names: tuple[str, ...] | None = None
    background: int | None = None
    ignore: tuple[int, ...] = ()
    settable: bool = False

    @property
    def void(self) -> frozenset[int]:
        return frozenset({*self.ignore, IGNORE})

    @property
    def ids(self) -> str:
        classes = ranges(list(range(len(self.names)))) if self.names else "of classes"
        return f"ids {classes}, void {' and '.join(map(str, sorted(self.void)))}"

    def declare(self, value: int | str) -> str:
        """How to declare an id as void without changing the masks."""
        return f"give --ignore {value}" if self.settable else f'write "ignore": {value} in classes.json'

    def name(self, index: int) -> str:
        return f"{index} ({self.names[index]})" if self.names and 0 <= index < len(self.names) else str(index)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examined:
    """All examples after reading; every rule takes one.

    Attributes:
      where: the folder that was checked, for faults of the whole.
    """

    facts: Sequence[Facts]
    expected: Expected
    where: object

    @functools.cached_property
    def fine(self) -> list[MaskFacts]:
        return [f.fine for f in self.facts if f.fine is not None]

    @functools.cached_property
    def masks(self) -> list[MaskFacts]:
        """Fine and coarse masks."""
        return [mask for f in self.facts for mask in (f.fine, f.coarse) if mask is not None]

    @functools.cached_property
    def used(self) -> list[int]:
        """Every id of any mask, in order."""
        return sorted({value for mask in self.masks for value in mask.counts})
