"""The classes of the command's flags, and the examples of a source folder of `folder/NAME`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from scarce_jax.data.builders.formats import (
    CLASS_FILES,
    FORMATS,
    Classes,
    FileMask,
    Layout,
    Mask,
    Options,
    choose,
    folder_layout,
    pairs,
    read_class_file,
    read_source,
)
from scarce_jax.data.builders.formats.classes import make_classes
from scarce_jax.data.builders.formats.find_classes import find_classes
from scarce_jax.data.builders.formats.pairing import Folders
from scarce_jax.data.builders.formats.tags import find_tags
from scarce_jax.data.decoding import read_size
from scarce_jax.data.image_files import FileError
from scarce_jax.data.images import wxh
from scarce_jax.data.palettes import Palettes
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.examine import examine_arrays, examine_files
from scarce_jax.doctor.facts import Example, Expected, Facts
from scarce_jax.doctor.findings import Finding, fault, fault_of
from scarce_jax.doctor.layouts import pair_folders
from scarce_jax.errors import InputError, plural


def expected_classes(classes: str | int | os.PathLike[str]) -> Classes:
    """The classes of `--classes`: their number, or a file that lists them.

    Raises:
      InputError: `classes` is neither, or there are not 1 to 255 classes.
    """
    text = str(classes)
    if not text.isdecimal():
        path = pathlib.Path(classes).expanduser()
        if not path.is_file():
            raise InputError(
                f"--classes {classes}: neither a number nor a file; expected the number of classes, or {CLASS_FILES}"
            )
        return read_class_file(path)
    names = [f"class {k}" for k in range(int(text))]
    if not 1 <= len(names) <= IGNORE:
        raise InputError(f"--classes {classes}: {len(names)} classes, expected 1 to 255")
    return make_classes(names, f"--classes {classes}")


def expected_of(classes: Classes) -> Expected:
    """What masks should hold once their ids and colours are class indices, where these differ."""
    ignore = classes.ignore if classes.plain else ()
    return Expected(names=classes.classes, background=classes.background, ignore=ignore, plain=classes.plain)


def with_classes(examples: list[Example], classes: Classes) -> list[Example]:
    """Examples whose masks are read by these classes, where the ids in the files may be no class indices."""

    def read(file: pathlib.Path | None) -> Mask | pathlib.Path | None:
        return None if file is None else _file(FileMask(file, classes))

    return [dataclasses.replace(one, mask=read(one.mask), coarse=read(one.coarse)) for one in examples]


def _file(mask: Mask | None) -> Mask | pathlib.Path | None:
    """The file itself where all its ids are class indices."""
    if isinstance(mask, FileMask) and mask.classes.plain and not mask.classes.colours:
        return mask.path
    return mask


def new_palettes() -> dict[str, Palettes]:
    """The palettes of the masks that `examine` reads itself, which must agree."""
    return {"mask": Palettes(), "coarse": Palettes()}


def examine(example: Example, void: frozenset[int], deep: bool, palettes: Mapping[str, Palettes]) -> Facts:
    """Reads the files of an example whose masks are files or objects of `Mask`.

    Args:
      example, void, deep: as for `examine_files`, which sees the ids that the user wrote where they are class indices.
      palettes: of `new_palettes`, the same for all examples.
    """
    read, files = {}, {}
    for field, mask in (("mask", example.mask), ("coarse", example.coarse)):
        drawn = isinstance(mask, Mask) and not mask.holds_indices()
        read[field] = mask if drawn else None
        files[field] = None if drawn else mask.path if isinstance(mask, Mask) else mask
    facts = examine_files(dataclasses.replace(example, **files), void, deep)
    if not any(read.values()):
        return facts
    facts.example = example
    arrays = [None if mask is None else _read(mask, palettes[field], facts) for field, mask in read.items()]
    return examine_arrays(facts, None, *arrays, void, deep)


def _read(mask: Mask, palettes: Palettes, facts: Facts) -> np.ndarray | None:
    try:
        indices = mask.read(palettes)
    except FileError as error:
        facts.faults.append(fault_of(error))
        return None
    except (InputError, OSError) as error:
        observed = str(error).removeprefix(f"{mask}: ")
        facts.faults.append(fault("unusable-mask", mask, observed))
        return None
    readable = facts.digest is not None
    image = facts.example.image
    if readable and indices.shape != (size := read_size(image)):
        advice = "export the annotations again for these images, or find the right images"
        observed = f"{wxh(indices.shape)}, its image {image} is {wxh(size)}"
        facts.faults.append(fault("size-mismatch", mask, observed, advice=advice))
    return indices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What a check of a source folder reads.

    Attributes:
      examples: their masks are files, or objects of `Mask` where ids or colours must become classes first.
      classes: the classes that the source lists.
      notes: the format, and what `prepare` would make of the folder.
      used: the ids in the masks that `read` has read.
      palettes: as for `examine`.
    """

    examples: list[Example]
    classes: Classes
    notes: tuple[str, ...] = ()
    used: set[int] = dataclasses.field(default_factory=set)
    palettes: Mapping[str, Palettes] = dataclasses.field(default_factory=new_palettes)

    @property
    def expected(self) -> Expected:
        return expected_of(self.classes)

    def read(self, example: Example, deep: bool) -> Facts:
        facts = examine(example, self.expected.void, deep, self.palettes)
        for mask in (facts.fine, facts.coarse):
            self.used.update(() if mask is None else mask.counts)
        return facts

    def ambiguous(self, where: pathlib.Path) -> list[Finding]:
        """What all masks together leave open: which id the first class has; see `Classes.confirm`."""
        try:
            self.classes.confirm(self.used - {IGNORE})
        except InputError as error:
            observed, _, advice = str(error).removeprefix(f"{self.classes.source}: ").rpartition("; ")
            return [fault("void-code", where, observed, advice=advice)]
        return []


def read_for_check(source: pathlib.Path, options: Options, faults: list[Finding]) -> Source:
    """Reads a source folder so that every fault can be named, not the first one alone.

    Args:
      faults: the list to which faults of file names, folder names and tags.csv are added.

    Raises:
      InputError: the folder is of no known format, or cannot be read, for a reason that is no fault of one file.
    """
    name = choose(source, options)
    if name not in ("folder", "pairs"):
        layout = read_source(source, options)
        return Source(examples=examples_of(layout), classes=layout.classes, notes=layout.describe())
    folders = folder_layout.folders_of(source) if name == "folder" else pairs.folders_of(source, options)
    classes = find_classes(source, options, FORMATS[name].holds)
    try:
        layout, error = read_source(source, options), None
    except InputError as wrong:
        layout, error = None, wrong
    examples = _paired(source, folders, classes, faults)
    if layout is None:
        if not any(finding.certain for finding in faults):
            raise error
        return Source(examples=examples, classes=classes)
    # What a reader can match by name is no fault.
    faults[:] = [finding for finding in faults if finding.kind != "names-differ"]
    return Source(examples=examples_of(layout), classes=classes, notes=layout.describe())


def examples_of(layout: Layout) -> list[Example]:
    """The images of a layout with their masks: files where all ids are class indices, else objects of `Mask`."""
    return [
        Example(
            split=split,
            name=item.name,
            image=item.image,
            mask=_file(item.fine),
            coarse=_file(item.coarse),
            tags=None if item.tags is None else frozenset(item.tags.nonzero()[0].tolist()),
        )
        for split, items in layout.splits.items()
        for item in items
    ]


def _paired(source: pathlib.Path, every: list[Folders], classes: Classes, faults: list[Finding]) -> list[Example]:
    """The examples of folders of images and masks, with the faults of their names."""
    examples: list[Example] = []
    for folders in every:
        examples += pair_folders(folders.images, folders.masks, folders.coarse, folders.split, faults)
        if folders.split:
            _find_unread(folders, faults)
    names: dict[str, list[str]] = {}
    for example in examples:
        names.setdefault(example.split, []).append(example.name)
    tags = {}
    try:
        if all(folders.split for folders in every):
            tags = find_tags(source, classes, names, {folders.split: folders.images.parent for folders in every})
    except InputError as error:
        file, _, observed = str(error).partition(", ")
        faults.append(fault("tags-file", file, observed or str(error)))
    indices = {name: frozenset(row.nonzero()[0].tolist()) for name, row in tags.items()}
    examples = [dataclasses.replace(one, tags=indices.get(f"{one.split}/{one.name}")) for one in examples]
    return with_classes(examples, classes)


def _find_unread(folders: Folders, faults: list[Finding]) -> None:
    """Adds folders of images that no command reads."""
    for folder in folder_layout.unread(folders.images.parent, folders):
        count = folder_layout.count_images(folder)
        if count:
            observed = f"{plural(count, 'image file')} in a folder that is not read"
            advice = f"rename it to {folder_layout.MASKS} if these are masks, or move it out of the split"
            fine = folders.masks is not None
            faults.append(fault("folder-not-read", folder, observed, advice=advice, certain=not fine))
