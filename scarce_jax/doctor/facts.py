"""The data of the label doctor: the examples, the content of their files, and what the masks should hold."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

from scarce_jax.data.builders.files import ranges
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.findings import Finding

LISTED = 12
"""Ids of classes that an advice lists in full."""

RUNS = 8
"""Runs of neighbouring ids that a message lists in full."""


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
      plain: whether the ids that the rules see are those of the user's files; if not, they are class indices.
      settable: whether the masks are loose files, so that the user declares void by `--ignore`, not in classes.json.
    """

    names: tuple[str, ...] | None = None
    background: int | None = None
    ignore: tuple[int, ...] = ()
    plain: bool = True
    settable: bool = False

    @property
    def void(self) -> frozenset[int]:
        return frozenset({*self.ignore, IGNORE})

    @functools.cached_property
    def classes(self) -> frozenset[int] | None:
        """The ids of classes; None where they are not known."""
        return None if self.names is None else frozenset(range(len(self.names))) - self.void

    @property
    def ids(self) -> str:
        classes = "of classes" if self.classes is None else short_ranges(sorted(self.classes))
        return f"ids {classes}, void {' and '.join(map(str, sorted(self.void)))}"

    def declare(self, value: int | str) -> str:
        """How to declare an id as void that is no class, without changing the masks."""
        return f"give --ignore {value}" if self.settable else f'write "ignore": {value} in classes.json'

    def renumber(self, void: int | None = None) -> str:
        """How to make ids class indices that count from 1, where `void`, if any, is void."""
        if self.settable:
            erased = "" if void is None else f"{void} as 255 and "
            return f"save {erased}every class one lower, and leave 255 as it is"
        return id_mapping({k: name for k, name in enumerate(self.names, 1)}, void)

    def name(self, value: int) -> str:
        """An id for messages, with the name of its class."""
        if self.classes is None or value not in self.classes:
            return str(value)
        return f"{value} ({self.names[value]})" if self.plain else self.names[value]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examined:
    """All examples after reading; every rule takes one.

    Attributes:
      where: the folder that was checked, for faults of the whole.
      faults: the faults of file names.
    """

    facts: Sequence[Facts]
    expected: Expected
    where: object
    faults: Sequence[Finding] = ()

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


def short_ranges(values: Sequence[int]) -> str:
    """Formats sorted integers as "0..2, 5"; of more than `RUNS` runs, the first and the last."""
    text = ranges(list(values))
    runs = text.split(", ")
    return text if len(runs) <= RUNS else f"{', '.join(runs[: RUNS - 1])}, ..., {runs[-1]} ({len(values):,} ids)"


def id_mapping(names: Mapping[int, str], void: int | None = None) -> str:
    """The lines of a classes.json that give each mask id its class; of many ids, the first and the last."""
    listed = [f'"{value}": {json.dumps(name, ensure_ascii=False)}' for value, name in names.items()]
    listed = listed if len(listed) <= LISTED else [*listed[:3], "...", listed[-1]]
    ignore = "" if void is None else f', "ignore": {void}'
    return f'write "ids": {{{", ".join(listed)}}}{ignore} in classes.json'
