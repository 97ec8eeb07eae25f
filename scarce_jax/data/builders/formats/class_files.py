"""Reading the classes of a source from any file that lists them."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from scarce_jax.data.builders.formats.classes import CLASSES_JSON, Classes, Colour, classes_of_json, make_classes
from scarce_jax.data.builders.formats.tree import kind_of
from scarce_jax.data.datasets import default_palette
from scarce_jax.data.files import read_json, read_lines
from scarce_jax.errors import InputError

CLASS_FILES = (
    "a classes.json, a text file with one class name per line, a labelmap.txt of CVAT (name:r,g,b:parts:actions), a "
    "_classes.csv of Roboflow (Pixel Value, Class), or a JSON of COCO or Supervisely with the categories"
)
_LABELMAP = re.compile(r"(?P<name>.+?):(?P<colour>\s*\d+\s*,\s*\d+\s*,\s*\d+\s*)?:[^:]*:[^:]*")
_NUMBERED = re.compile(r"\s*(?P<id>\d+)\s*[,;\t:]\s*(?P<name>[^,;\t]+?)\s*")
_TABLE = re.compile(r"[,;\t]")


def read_class_file(path: pathlib.Path) -> Classes:
    """Reads the classes from a file of any kind in `CLASS_FILES`.

    Comment lines (`#`), empty lines and the line of headings of a table are no classes.

    Raises:
      InputError: the file is missing, is of no such kind, or has not 1 to 255 different names.
    """
    if path.suffix.lower() == ".json":
        return _of_json(path, read_json(path, CLASSES_JSON))
    numbered = list(enumerate(read_lines(path, CLASS_FILES), 1))
    # labelme's list begins with the label of pixels without a class.
    lines = [(n, line.strip()) for n, line in numbered if line.strip() and not line.lstrip().startswith("#")]
    lines = [(n, line) for n, line in lines if line != "__ignore__"]
    if not lines:
        raise InputError(f"{path}: lists no class; expected {CLASS_FILES}")
    for pattern, make in ((_LABELMAP, _of_labelmap), (_NUMBERED, _of_table)):
        rows = [(n, line, pattern.fullmatch(line)) for n, line in lines]
        # The first line of a table may be its headings.
        if pattern is _NUMBERED and len(rows) > 1 and rows[0][2] is None and _TABLE.search(rows[0][1]):
            rows = rows[1:]
        if any(match for _, _, match in rows):
            wrong = [(n, line) for n, line, match in rows if match is None]
            if wrong and sum(match is not None for _, _, match in rows) > len(wrong):
                raise InputError(f"{path}, line {wrong[0][0]}: {wrong[0][1]!r} is unlike the others; {CLASS_FILES}")
            if not wrong:
                return make(path, [match for _, _, match in rows])
    for n, line in lines:
        if _TABLE.search(line):
            raise InputError(
                f"{path}, line {n}: {line!r} is no class name, but a row of a table; expected {CLASS_FILES}"
            )
    return make_classes([line for _, line in lines], str(path))


def _of_labelmap(path: pathlib.Path, rows: list[re.Match]) -> Classes:
    """CVAT's labelmap: the class of a mask's colour; where it states none, the colours are those of PASCAL VOC."""
    names = [row["name"].strip() for row in rows]
    colours = [row["colour"] and tuple(int(x) for x in row["colour"].split(",")) for row in rows]
    if not any(colours):
        colours = [(0, 0, 0), *default_palette(len(names))][: len(names)]
    return with_colours(path, names, colours)


def with_colours(path: pathlib.Path, names: list[str], colours: list[Colour | None]) -> Classes:
    """Classes that colours mean in the masks.

    Raises:
      InputError: a colour is missing, out of range or there twice.
    """
    for k, colour in enumerate(colours):
        if colour is None or max(colour) > 255 or min(colour) < 0:
            raise InputError(f"{path}: class {names[k]!r} has the colour {colour}, expected three numbers of 0..255")
        if colour in colours[:k]:
            other = names[colours.index(colour)]
            raise InputError(f"{path}: the colour {colour} is that of {other!r} and of {names[k]!r}; expected one each")
    return make_classes(names, str(path), palette=colours, colours={c: k for k, c in enumerate(colours)})


def _of_table(path: pathlib.Path, rows: list[re.Match]) -> Classes:
    """Rows of an id and a name."""
    ids: dict[int, str] = {}
    for row in rows:
        value = int(row["id"])
        if value in ids or value > 65535:
            raise InputError(f"{path}: the id {value} is there twice or above 65535; expected one row per id")
        ids[value] = row["name"]
    return make_classes(list(ids.values()), str(path), ids={value: k for k, value in enumerate(ids)})


def _of_json(path: pathlib.Path, content: Any) -> Classes:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return make_classes(content, str(path))
    if isinstance(content, dict) and isinstance(content.get("categories"), list):
        return of_categories(path, content["categories"])
    if kind_of(content) == "supervisely":
        return supervisely_classes(path, content["classes"])
    return classes_of_json(path, content)


def of_categories(path: pathlib.Path, categories: Any) -> Classes:
    """COCO's categories by id, after a background with the id 0; masks of pixels that no object covers are that.

    Raises:
      InputError: they are not a list of {"id", "name"}, or an id or a name is there twice.
    """
    try:
        ids = {int(category["id"]): str(category["name"]) for category in categories}
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(
            f'{path}: categories are not a list of {{"id", "name"}} ({type(error).__name__}: {error})'
        ) from error
    if len(ids) < len(categories):
        raise InputError(f"{path}: {len(categories)} categories have {len(ids)} different ids; expected one each")
    return behind(str(path), [name for _, name in sorted(ids.items())], ids=sorted(ids))


def supervisely_classes(path: pathlib.Path, classes: list[dict[str, Any]]) -> Classes:
    """Classes of a Supervisely meta.json, after the background."""
    return behind(str(path), [str(one["title"]) for one in classes])


def behind(source: str, names: list[str], ids: list[int] | None = None) -> Classes:
    """Classes of objects, after a background for what no object covers, unless one of the names is the background.

    Args:
      ids: the id of each name; 0 is then the background's.
    """
    if make_classes(names, source).background is not None:
        table = None if ids is None else {value: k for k, value in enumerate(ids)}
        return make_classes(names, source, ids=table)
    table = None if ids is None else {**({} if 0 in ids else {0: 0}), **{value: k for k, value in enumerate(ids, 1)}}
    return make_classes(["background", *names], source, background=0, ids=table)
