"""The two text files of a `folder` source: classes.json and tags.csv."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from scarce_jax.data.datasets import default_palette
from scarce_jax.data.files import read_json
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError, nearest

KEYS = ("classes", "palette", "background", "ignore")
CLASSES_JSON = (
    '{"classes": [names], "palette": [[r, g, b], ...] or absent, "background": a name, an index or null, '
    '"ignore": further void ids or absent}'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """The content of a classes.json.

    Attributes:
      classes: 1 to 255 class names; the index of a class is its value in the masks.
      palette: an RGB triple (0..255) per class.
      background: index of the background class, or None.
      ignore: ids in the masks that mean void, besides 255.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    background: int | None = None
    ignore: tuple[int, ...] = ()

    @property
    def indices(self) -> dict[int, int]:
        """Native id -> class index or 255."""
        return {**{k: k for k in range(len(self.classes))}, **dict.fromkeys(self.ignore, IGNORE)}


def read_classes(path: pathlib.Path) -> Classes:
    """Reads a classes.json.

    Raises:
      InputError: the file is missing or not JSON, or a field of it is wrong.
    """
    value = read_json(path, CLASSES_JSON)
    if not isinstance(value, dict):
        raise InputError(f"{path}: found a {type(value).__name__}, expected {CLASSES_JSON}")
    for key in value:
        if key not in KEYS:
            raise InputError(f"{path}: unknown field {key!r}{nearest(key, KEYS)}; expected {CLASSES_JSON}")
    names = value.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f"{path}: classes is {names!r}, expected a list of names")
    if not 1 <= len(names) <= IGNORE or len(set(names)) < len(names):
        raise InputError(f"{path}: {len(names)} classes, {len(set(names))} different; expected 1 to 255, each once")
    background = _background(path, value.get("background"), names)
    return Classes(
        classes=tuple(names),
        palette=_palette(path, value.get("palette"), len(names), background),
        background=background,
        ignore=_ignore(path, value.get("ignore"), names),
    )


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _palette(path: pathlib.Path, value: Any, count: int, background: int | None) -> tuple[tuple[int, int, int], ...]:
    if value is None:
        if background is None:
            return default_palette(count)
        others = default_palette(count - 1)
        return (*others[:background], (0, 0, 0), *others[background:])
    valid = isinstance(value, list) and all(
        isinstance(colour, list) and len(colour) == 3 and all(_is_index(x) and 0 <= x <= 255 for x in colour)
        for colour in value
    )
    if not valid or len(value) != count:
        fault = f"{len(value)} colours" if valid else "not a list of RGB triples of 0..255"
        raise InputError(f"{path}: palette: {fault}, expected {count} RGB triples, one per class; or leave it out")
    return tuple(tuple(colour) for colour in value)


def _background(path: pathlib.Path, value: Any, names: list[str]) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value in names:
        return names.index(value)
    if _is_index(value) and 0 <= value < len(names):
        return value
    raise InputError(
        f"{path}: background is {value!r}, expected null, one of the names or an index from 0 to {len(names) - 1}"
    )


def _ignore(path: pathlib.Path, value: Any, names: list[str]) -> tuple[int, ...]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(_is_index(i) and 0 <= i <= 65535 for i in ids):
        raise InputError(f"{path}: ignore is {value!r}, expected one id of the masks, or a list of them")
    for i in ids:
        if i < len(names):
            raise InputError(
                f"{path}: ignore has {i}, which is the id of class {names[i]!r}; expected ids that are no class, "
                f"from {len(names)}"
            )
    return tuple(ids)


def read_tags(path: pathlib.Path, classes: Classes, ids: Mapping[str, Iterable[str]]) -> dict[str, np.ndarray]:
    """Reads a tags.csv, which has lines `id,class;class`; without a class after the comma, the image shows none.

    A first line that begins with `id` is a header. The background class may be listed, but has no tag.

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
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}); expected lines id,class;class") from error
    tags_by_id: dict[str, np.ndarray] = {}
    for number, cells in enumerate(lines, 1):
        if not any(cell.strip() for cell in cells) or (number == 1 and cells[0].strip().lower() == "id"):
            continue
        where, name = f"{path}, line {number}", unicodedata.normalize("NFC", cells[0].strip())
        matches = list(ids.get(name, ()))
        if not matches:
            raise InputError(
                f"{where}: no image is called {name!r}{nearest(name, ids)}; expected a name without suffix"
            )
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
