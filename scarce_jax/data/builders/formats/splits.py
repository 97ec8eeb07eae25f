"""Splits by the names that people use, and a validation split by share or by list."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence

from scarce_jax.data.builders.formats.layout import Item, Layout
from scarce_jax.data.files import read_lines
from scarce_jax.data.image_files import SUFFIXES, composed
from scarce_jax.errors import InputError, nearest, some

NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
SHARE = "expected a share between 0 and 1, such as 0.2, or a file that lists names"
NO_VAL = "there is no split val: --val 0.2 takes a fifth of the labelled images for it, --val FILE those listed"

_SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_AUGMENTED = re.compile(r"\.rf\.[0-9a-zA-Z]+$")
"""What Roboflow adds to the name of an image, of which an export may hold several augmented versions."""


def canonical(name: str) -> str:
    """Returns train, val or test for a name that people use for it, else ""."""
    return next((split for split, names in NAMES.items() if name.lower() in names), "")


def split_of_folder(name: str, where: pathlib.Path) -> str:
    """The split of a folder's name.

    Raises:
      InputError: the name cannot be that of a split.
    """
    if not _SPLIT.fullmatch(name) or name == "all":
        raise InputError(
            f"{where}: {name!r} cannot name a split; expected a letter and then letters, digits or _, such as "
            "train or val, and not all; rename the folder"
        )
    return canonical(name) or name


def in_order(splits: Mapping[str, Sequence[Item]]) -> dict[str, list[Item]]:
    """Sorts splits: train, val and test first."""
    first = tuple(NAMES)
    key = lambda name: (first.index(name) if name in first else len(first), name)
    return {name: list(splits[name]) for name in sorted(splits, key=key)}


def by_first_folder(names: Sequence[str], where: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Splits names by their first folder, where that is a split.

    Args:
      names: paths relative to `where`, such as "training/a".

    Returns:
      Name -> (split, rest of the name); all of "train" where no first folder names a split.

    Raises:
      InputError: some names are in folders of splits and others are not.
    """
    first = {name: canonical(name.partition("/")[0]) if "/" in name else "" for name in names}
    if not any(first.values()):
        return {name: ("train", name) for name in names}
    outside = [name for name, split in first.items() if not split]
    if outside:
        raise InputError(
            f"{where}: {some(outside, 3)} are in no folder of a split, other images are; move them into train, val "
            "or test"
        )
    return {name: (split, name.partition("/")[2]) for name, split in first.items()}


def divide(layout: Layout, val: str | None) -> Layout:
    """Moves images of the only split to `val`.

    A share is taken from the images with fine masks, because only these can be measured. Which ones depends on the
    names alone, and versions of one image that Roboflow augmented stay together.

    Args:
      layout: a layout of one split, or of train and test.
      val: a share between 0 and 1, or a file that lists names, with or without suffix; None changes nothing.

    Raises:
      InputError: there is a split `val` already, `val` is neither a share nor a file, or the list names no image.
    """
    if val is None:
        if "val" not in layout.splits:
            return dataclasses.replace(layout, notes=(*layout.notes, NO_VAL))
        return layout
    if "train" not in layout.splits or "val" in layout.splits:
        raise InputError(f"--val {val}: the source has splits already ({', '.join(layout.splits)}); leave the flag out")
    items = layout.splits["train"]
    path = pathlib.Path(val).expanduser()
    try:
        share = float(val)
    except ValueError:
        if not path.is_file():
            raise InputError(f"--val {val}: {SHARE}; this is neither a number nor a file") from None
        chosen = _listed(path, items)
    else:
        if not 0 < share < 1:
            raise InputError(f"--val {val}: {SHARE}")
        chosen = _share(share, items)
    train = [item for item in items if item.name not in chosen]
    if not train or len(train) == len(items):
        raise InputError(f"--val {val}: {len(chosen)} of {len(items)} images, expected some of them and not all")
    splits = {**layout.splits, "train": train, "val": [item for item in items if item.name in chosen]}
    return dataclasses.replace(layout, splits=in_order(splits))


def _share(share: float, items: Sequence[Item]) -> set[str]:
    labelled = [item.name for item in items if item.fine is not None]
    if len(labelled) < 2:
        raise InputError(f"--val {share}: {len(labelled)} images with a fine mask, expected at least 2 to divide")
    groups: dict[str, list[str]] = {}
    for name in labelled:
        groups.setdefault(_AUGMENTED.sub("", name), []).append(name)
    shuffled = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    wanted = min(max(1, round(share * len(labelled))), len(labelled) - 1)
    chosen: set[str] = set()
    for group in shuffled:
        if chosen and len(chosen) + len(groups[group]) > wanted:
            break
        chosen.update(groups[group])
    return chosen


def _listed(path: pathlib.Path, items: Sequence[Item]) -> set[str]:
    lines = [line.strip() for line in read_lines(path, "a share such as 0.2, or a text file with a name per line")]
    names = {item.name for item in items}
    by_last_part: dict[str, list[str]] = {}
    for name in names:
        by_last_part.setdefault(pathlib.PurePosixPath(name).name, []).append(name)
    chosen = set()
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        name = composed(without_suffix(line))
        parts = name.split("/")
        # A list may have longer paths than the names, or the last parts of the names alone.
        whole = next((tail for k in range(len(parts)) if (tail := "/".join(parts[k:])) in names), None)
        matches = by_last_part.get(name, []) if whole is None else [whole]
        if len(matches) != 1:
            fault = (
                f"is the name of {len(matches)} images ({some(sorted(matches), 3)})"
                if matches
                else f"is no image{nearest(name, [*names, *by_last_part])}"
            )
            raise InputError(f"{path}, line {number}: {line!r} {fault}; expected the name of one image per line")
        chosen.add(matches[0])
    return chosen


def without_suffix(name: str) -> str:
    """A file's name or path without the suffix of an image; other dots are part of the name."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name
