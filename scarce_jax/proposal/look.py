"""What a folder of photographs and masks holds, by the readers that `prepare` and `check` use."""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import json
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from scarce_jax.data.builders.formats import Layout, Options, UnknownFormat, choose, read_source
from scarce_jax.data.builders.formats.find_classes import class_file
from scarce_jax.data.builders.formats.tags import TAGS
from scarce_jax.data.builders.formats.tree import MASK_FOLDERS, Tree
from scarce_jax.data.decoding import read_size
from scarce_jax.data.image_files import scan_images
from scarce_jax.doctor import Report, check_source, read_layout
from scarce_jax.doctor.examine import examine_files
from scarce_jax.doctor.facts import Example
from scarce_jax.doctor.layouts import pair_folders
from scarce_jax.errors import InputError, plural, some
from scarce_jax.proposal.classes import BACKGROUND, propose_classes

LISTING = ("folder", "pairs", "voc")
"""Formats whose classes a file lists; the others bring theirs."""
SHARE = "0.2"
FEW = 8
"""Folders of which each is tried as the masks of each other; of more, none is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What a folder holds.

    Attributes:
      source: the folder.
      options: how `prepare` must read it; a share for `val` is proposed where it has none.
      classes: the content of a classes.json, where no file lists the classes.
      report: what `check` says of it.
      layout: its content by split; None where the report has problems.
      sizes: (height, width) -> number of photographs, the commonest first.
    """

    source: pathlib.Path
    options: Options
    classes: dict[str, Any] | None
    report: Report
    layout: Layout | None
    sizes: Mapping[tuple[int, int], int]


def look(source: pathlib.Path, options: Options) -> Seen:
    """Reads a folder as `prepare` would, and checks it. Writes nothing.

    Raises:
      InputError: it has no photograph or no label, is of no format that `prepare` reads, or its classes cannot be told;
        the message says what to do.
    """
    options = _format(source, options)
    name = choose(source, options)
    unknown = name in LISTING and class_file(source, options) is None
    classes = _propose(source, options) if unknown else None
    with _with_classes(options, classes) as reading:
        layout = None
        with contextlib.suppress(InputError):  # The report says what is wrong.
            layout = read_source(source, reading)
        if layout is not None:
            options = dataclasses.replace(options, val=options.val or _share(layout))
            reading = dataclasses.replace(reading, val=options.val)
        report = check_source(source, reading)
        layout = read_source(source, reading) if report.clean else None
    sizes = collections.Counter(read_size(item.image) for item in layout.items()) if layout else {}
    return Seen(
        source=source,
        options=options,
        classes=classes,
        report=report,
        layout=layout,
        sizes=dict(sorted(sizes.items(), key=lambda size: -size[1])),
    )


def _share(layout: Layout) -> str | None:
    """The share of the labelled images that `prepare` should take for validation, if there is none and it can."""
    labelled = sum(item.fine is not None for item in layout.splits.get("train", ()))
    return SHARE if "val" not in layout.splits and labelled > 1 else None


@contextlib.contextmanager
def _with_classes(options: Options, content: dict[str, Any] | None) -> Iterator[Options]:
    """The options with a file of these classes, which need not be in the folder yet."""
    if content is None:
        yield options
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "classes.json"
        path.write_text(json.dumps(content))
        yield dataclasses.replace(options, classes=path)


def _propose(source: pathlib.Path, options: Options) -> dict[str, Any]:
    tags = sorted(_tags(source))
    with _with_classes(options, {"classes": tags or ["unknown"]}) as reading:
        layout = read_source(source, reading)
    if tags and not any(item.fine or item.coarse for item in layout.items()):
        return {"classes": [BACKGROUND, *(tag for tag in tags if tag != BACKGROUND)], "background": BACKGROUND}
    if tags:
        names = json.dumps([BACKGROUND, *(tag for tag in tags if tag != BACKGROUND)], ensure_ascii=False)
        raise InputError(
            f"{source}: {TAGS} names {some(tags)}, and no file says which ids these have in the masks; write "
            f'{source / "classes.json"} with the classes in the order of their ids, such as {{"classes": {names}, '
            f'"background": "{BACKGROUND}"}}'
        )
    content = propose_classes(read_layout(layout), source)
    if content is None:
        raise InputError(f"{source}: {plural(sum(1 for _ in layout.items()), 'photograph')} and {NO_LABEL}")
    return content


NO_LABEL = (
    "no mask; expected masks of at least a few of them, as PNG files of class ids with their names, in a folder "
    "`masks` beside the folder `images`; draw some in labelme, CVAT or another tool whose export `prepare` reads"
)


def _tags(source: pathlib.Path) -> set[str]:
    """The names in every tags.csv of a folder and its splits."""
    names: set[str] = set()
    for path in (source / TAGS, *source.glob(f"*/{TAGS}")):
        with contextlib.suppress(OSError, UnicodeDecodeError, csv.Error):
            for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()):
                if row and row[0].strip().lower() != "id":
                    names.update(name.strip() for cell in row[1:] for name in cell.split(";") if name.strip())
    return names


def _format(source: pathlib.Path, options: Options) -> Options:
    """The options, with two folders of other names than the formats know as images and masks.

    Raises:
      InputError: as in `choose`, or images and masks are not in folders of their own, or there are no masks.
    """
    try:
        choose(source, options)
        return options
    except UnknownFormat:
        tree = Tree(source)
        if tree.json_kinds:
            raise
    named = [name for name in tree.names if re.search("/(images|masks|coarse)$", name, re.IGNORECASE)]
    if capital := [name for name in named if not name.endswith(("images", "masks", "coarse"))]:
        raise InputError(
            f"{source}: capital letters in {some(capital)}; expected small ones; rename each such folder, "
            f"{source / capital[0]} to {capital[0].rpartition('/')[2].lower()}"
        )
    folders = [source / name for name in tree.folders() if tree.images(name)]
    loose = len(scan_images(source, nested=False)[0])
    if not folders and not loose:
        content = "" if tree.content() == "no file" else f" (it has {tree.content()})"
        raise InputError(f"{source}: no photograph{content}; expected photographs in a folder `images`, and {_MASKS}")
    coarse = [folder for folder in folders if "coarse" in folder.name.lower()]
    tried = not loose and len(folders) <= FEW
    pairs = [(a, b) for a in folders for b in folders if a != b and not {a, b} & set(coarse)] if tried else []
    fitting = [pair for pair in pairs if _are_masks(*pair)]
    if len(fitting) == 1:
        images, masks = fitting[0]
        return dataclasses.replace(options, images=images, masks=masks, coarse=coarse[0] if coarse else None)
    if loose and tree.named(MASK_FOLDERS):
        raise InputError(
            f"{source}: {plural(loose, 'photograph')} beside the folder {some(tree.named(MASK_FOLDERS))}; expected "
            f"them in a folder of their own; move them to {source / 'images'}"
        )
    here = source if loose or len(folders) != 1 else folders[0]
    _refuse_one_folder(here)
    listed = f"photographs in {some([folder.name for folder in folders])}" if folders else ""
    listed = " and ".join(filter(None, (plural(loose, "loose photograph") if loose else "", listed)))
    if len(folders) + bool(loose) == 1:
        raise InputError(f"{source}: {listed}, and {NO_LABEL}")
    why = "of which no two are photographs and their masks by name" if len(folders) <= FEW else "too many to tell masks"
    raise InputError(
        f"{source}: {listed}, {why}; move them to {source / 'images'} and {source / 'masks'}, or give --images DIR "
        "--masks DIR"
    )


_MASKS = "their masks in a folder `masks` beside it"


def _are_masks(images: pathlib.Path, masks: pathlib.Path) -> bool:
    """Whether the second folder has masks of the first: the same names, and a file of ids or of few colours."""
    with contextlib.suppress(InputError):
        faults: list = []
        examples = pair_folders(images, masks, None, "", faults)
        paired = [example for example in examples if example.mask is not None]
        wrong = [fault for fault in faults if fault.kind == "mask-without-image"]
        return bool(paired) and not wrong and _looks_like_a_mask(pathlib.Path(paired[0].mask))
    return False


def _looks_like_a_mask(path: pathlib.Path) -> bool:
    facts = examine_files(Example(split="", name="", image=path, mask=path), frozenset({255}), False)
    few = [colours for colours in facts.colours.values() if colours is not None]
    return facts.fine is not None or bool(few)


def _refuse_one_folder(folder: pathlib.Path) -> None:
    """Raises InputError with what to do if a folder holds photographs and, beside them, their masks."""
    faults: list = []
    with contextlib.suppress(InputError):
        pair_folders(folder, folder, None, "", faults)
    for fault in faults:
        if fault.kind == "one-folder":
            raise InputError(
                f"{folder}: {fault.examples[0][1]} ({plural(fault.count, 'mask')}); expected the photographs in a "
                f"folder `images` and {_MASKS}; {fault.advice}, and the photographs to `images`"
            )
