"""tags.csv: which classes an image shows."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from scarce_jax.data.builders.formats.classes import Classes
from scarce_jax.data.builders.formats.layout import Item
from scarce_jax.data.builders.formats.splits import without_suffix
from scarce_jax.data.image_files import composed
from scarce_jax.errors import InputError, nearest

TAGS = "tags.csv"


def with_tags(
    source: pathlib.Path,
    classes: Classes,
    splits: Mapping[str, list[Item]],
    folders: Mapping[str, pathlib.Path],
) -> tuple[dict[str, list[Item]], bool]:
    """Adds the tags of the source's files.

    Returns:
      The splits with tags, and whether any were found.

    Raises:
      InputError: as in `find_tags`.
    """
    names = {split: [item.name for item in items] for split, items in splits.items()}
    tags = find_tags(source, classes, names, folders)
    tagged = {
        split: [dataclasses.replace(item, tags=tags.get(f"{split}/{item.name}")) for item in items]
        for split, items in splits.items()
    }
    return tagged, bool(tags)


def find_tags(
    source: pathlib.Path,
    classes: Classes,
    names: Mapping[str, Iterable[str]],
    folders: Mapping[str, pathlib.Path],
) -> dict[str, np.ndarray]:
    """Reads the tags of all splits, from the tags.csv in their folders and from that of the whole source.

    Args:
      source: the source folder.
      classes: its classes.
      names: split -> names of its images.
      folders: split -> its folder.

    Returns:
      Example id -> uint8 [K], multi-hot.

    Raises:
      InputError: as in `read_tags`; or an image is in both files.
    """
    tags: dict[str, np.ndarray] = {}
    where: dict[str, pathlib.Path] = {}
    matches: dict[str, list[str]] = {}
    for split, stems in names.items():
        in_split = {stem: [f"{split}/{stem}"] for stem in stems}
        for stem, ids in in_split.items():
            matches.setdefault(stem, []).extend(ids)
            matches[ids[0]] = ids
        path = folders[split] / TAGS
        if path.is_file():
            found = read_tags(path, classes, in_split)
            where |= dict.fromkeys(found, path)
            tags |= found
    path = source / TAGS
    if path.is_file():
        whole = read_tags(path, classes, matches)
        repeated = sorted(set(whole) & set(tags))
        if repeated:
            raise InputError(f"{path}: {repeated[0]!r} is in {where[repeated[0]]} too; expected one line per image")
        tags |= whole
    return tags


def read_tags(path: pathlib.Path, classes: Classes, ids: Mapping[str, Iterable[str]]) -> dict[str, np.ndarray]:
    """Reads a tags.csv, which has lines `id,class;class`; without a class after the comma, the image shows none.

    A first line that begins with `id` is a header. Excel writes a semicolon after the id where the comma is the decimal
    sign; both are read. The id may have the suffix of its file. The background class may be listed, but has no tag.

    Args:
      path: the file.
      classes: the classes of the source.
      ids: allowed content of the first column -> the example ids that it may mean.

    Returns:
      Example id -> uint8 [K], multi-hot.

    Raises:
      InputError: the file is not text; or a line names an unknown class, or not exactly one image, or an image of an
        earlier line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = text.splitlines()
        first = next((row for row in rows if row.strip()), "")
        # A line with both separates the id by the one that comes first.
        separator = min((c for c in ",;\t" if c in first), key=first.index, default=",")
        lines = list(csv.reader(rows, delimiter=separator))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}); expected lines id,class;class") from error
    tags_by_id: dict[str, np.ndarray] = {}
    for number, cells in enumerate(lines, 1):
        if not any(cell.strip() for cell in cells) or (number == 1 and cells[0].strip().lower() == "id"):
            continue
        where, name = f"{path}, line {number}", composed(cells[0].strip())
        matches = list(ids.get(name, ids.get(without_suffix(name), ())))
        if not matches:
            raise InputError(f"{where}: no image is called {name!r}{nearest(name, ids)}; expected the name of an image")
        if len(matches) > 1:
            raise InputError(f"{where}: {name!r} is in several splits; write {' or '.join(map(repr, matches))}")
        if matches[0] in tags_by_id:
            raise InputError(f"{where}: {name!r} is listed twice; expected one line per image")
        tags = np.zeros(len(classes.classes), np.uint8)
        for label in (label.strip() for cell in cells[1:] for label in cell.split(";")):
            if label and label not in classes.classes:
                raise InputError(f"{where}: no class is called {label!r}{nearest(label, classes.classes)}")
            if label and (k := classes.classes.index(label)) != classes.background:
                tags[k] = 1
        tags_by_id[matches[0]] = tags
    return tags_by_id
