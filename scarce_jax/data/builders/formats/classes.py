"""The classes of a source, and classes.json."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from scarce_jax.data.datasets import default_palette
from scarce_jax.data.files import read_json
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError, nearest, some

KEYS = ("classes", "ids", "palette", "background", "ignore")
CLASSES_JSON = (
    '{"classes": [names], "ids": {"id in the masks": a name, ...} or absent, "palette": [[r, g, b], ...] or absent, '
    '"background": a name, an index or null, "ignore": an id of void pixels, a list of ids and [r, g, b], or absent}'
)
BACKGROUNDS = ("background", "_background_", "__background__", "bg")
VOID = ("void", "unlabelled", "unlabeled", "ignore", "__ignore__", *BACKGROUNDS)

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a source, and what means them in its masks.

    Attributes:
      classes: 1 to 255 class names, in the order of their indices.
      palette: an RGB triple (0..255) per class, to draw it.
      background: index of the background class, or None.
      ignore: ids in the masks that mean void, besides 255.
      ids: id in the masks -> class index, where the source states it.
      colours: colour in the masks -> class index or 255, where the source states it.
      source: the file they were read from, for messages.
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    background: int | None = None
    ignore: tuple[int, ...] = ()
    ids: Mapping[int, int] | None = None
    colours: Mapping[Colour, int] | None = None
    source: str = "classes.json"

    @property
    def first(self) -> int:
        """The id of the first class where `ids` is not stated: ids count on after void ids 0, 1, ..."""
        return _first(self.ignore)

    @functools.cached_property
    def indices(self) -> dict[int, int]:
        """Id in the masks -> class index or 255."""
        ids = {k + self.first: k for k in range(len(self.classes))} if self.ids is None else self.ids
        return {**dict.fromkeys(self.ignore, IGNORE), **ids}

    @property
    def plain(self) -> bool:
        """Whether the id of a class in the masks is its index."""
        return all(value == index for value, index in self.indices.items() if index != IGNORE)

    @property
    def native_ids(self) -> tuple[int, ...] | None:
        """An id in the masks for each class, the smallest of several; None if it is the class index."""
        if self.plain:
            return None
        return tuple(
            min(value for value, k in self.indices.items() if k == index) for index in range(len(self.classes))
        )

    def confirm(self, used: set[int]) -> None:
        """Refuses void ids before the classes unless the masks show that the classes' ids come after them.

        Names from 0 on with a class declared void, and names from 1 on, look alike but for the highest ids.

        Args:
          used: the class indices in all masks.

        Raises:
          InputError: no mask has an id as high as the number of classes.
        """
        if self.ids is None and self.first and used and max(used) + self.first < len(self.classes):
            ids = ", ".join(f'"{k + self.first}": "{name}"' for k, name in enumerate(self.classes[:3]))
            raise InputError(
                f"{self.source}: ignore has 0 and the masks have ids up to {max(used) + self.first} only, so that "
                f"{self.classes[0]!r} may have the id 0 or the id {self.first}; say which id each class has: "
                f'"ids": {{{ids}, ...}}'
            )

    def describe(self) -> str:
        """The classes and what means them, in a sentence."""
        native: dict[int, list[str]] = {}
        for value, index in sorted(self.indices.items()):
            native.setdefault(index, []).append(str(value))
        for colour, index in (self.colours or {}).items():
            native.setdefault(index, []).append("({},{},{})".format(*colour))
        void = native.pop(IGNORE, [])
        shown = self.colours or not self.plain
        named = [f"{k} {name}" + (f" ({', '.join(native.get(k, []))})" if shown else "") for k, name in
                 enumerate(self.classes)]  # fmt: skip
        if IGNORE not in (self.ids or ()):
            void = [*void, str(IGNORE)]
        meaning = " (in the masks)" if shown else ""
        return f"classes{meaning}: {some(named, 24)}; void: {', '.join(void) or 'none'}"


def make_classes(
    names: Sequence[str],
    source: str,
    *,
    palette: Sequence[Colour] | None = None,
    background: int | None = None,
    **fields: Any,
) -> Classes:
    """Makes `Classes`; a missing palette is made, and a missing background is a class with a name for it.

    Raises:
      InputError: there are not 1 to 255 different names.
    """
    names = list(names)
    _check_names(names, source)
    if background is None:
        background = _background_of(names)
    colours = drawing_palette(len(names), background) if palette is None else tuple(palette)
    return Classes(classes=tuple(names), palette=colours, background=background, source=source, **fields)


def _check_names(names: Sequence[str], source: str) -> None:
    if not 1 <= len(names) <= IGNORE or len(set(names)) < len(names):
        raise InputError(f"{source}: {len(names)} classes, {len(set(names))} different; expected 1 to 255, each once")


def _background_of(names: Sequence[str]) -> int | None:
    """The index of the class that is called background, or None."""
    return next((k for k, name in enumerate(names) if name.strip().lower() in BACKGROUNDS), None)


def drawing_palette(count: int, background: int | None) -> tuple[Colour, ...]:
    """A colour per class, black for the background."""
    if background is None:
        return default_palette(count)
    others = default_palette(count - 1)
    return (*others[:background], (0, 0, 0), *others[background:])


def read_classes(path: pathlib.Path) -> Classes:
    """Reads a classes.json.

    Class k has the id k in the masks, unless "ids" says otherwise; with void ids 0, 1, ... in "ignore", the classes
    begin after them. Without "classes" they are those of "ids", in its order. With "palette", masks may be colours.

    Raises:
      InputError: the file is missing or not JSON, or a field of it is wrong.
    """
    return classes_of_json(path, read_json(path, CLASSES_JSON))


def classes_of_json(path: pathlib.Path, value: Any) -> Classes:
    """Makes the classes of the content of a classes.json; see `read_classes`."""
    if not isinstance(value, dict):
        raise InputError(f"{path}: found a {type(value).__name__}, expected {CLASSES_JSON}")
    for key in value:
        if key not in KEYS:
            raise InputError(f"{path}: unknown field {key!r}{nearest(key, KEYS)}; expected {CLASSES_JSON}")
    stated = value.get("ids")
    if stated is not None and not (isinstance(stated, dict) and stated):
        raise InputError(f'{path}: ids is {stated!r}, expected {{"id": name, ...}} such as {{"7": "road"}}')
    names = value.get("classes")
    if names is None and stated is not None:
        names = list(dict.fromkeys(stated.values()))
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f"{path}: classes is {names!r}, expected a list of names")
    _check_names(names, str(path))
    background = _background(path, value["background"], names) if "background" in value else _background_of(names)
    palette = _palette(path, value.get("palette"), len(names))
    ids = None if stated is None else _ids(path, stated, names)
    ignore, void_colours = _ignore(path, value.get("ignore"), names, ids, background)
    colours = None
    if palette is not None:
        colours = {**dict.fromkeys(void_colours, IGNORE), **{colour: k for k, colour in enumerate(palette)}}
    return Classes(
        classes=tuple(names),
        palette=drawing_palette(len(names), background) if palette is None else palette,
        background=background,
        ignore=ignore,
        ids=ids,
        colours=colours,
        source=str(path),
    )


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_index(x) and 0 <= x <= 255 for x in value)


def _palette(path: pathlib.Path, value: Any, count: int) -> tuple[Colour, ...] | None:
    if value is None:
        return None
    valid = isinstance(value, list) and all(map(_is_colour, value))
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


def _ids(path: pathlib.Path, value: dict[str, Any], names: list[str]) -> dict[int, int]:
    ids = {}
    for key, name in value.items():
        if not key.isdecimal() or int(key) > 65535:
            raise InputError(f"{path}: ids has the key {key!r}, expected an id of the masks, from 0 to 65535")
        if name not in names:
            raise InputError(f"{path}: ids says {key} is {name!r}, which is no class{nearest(str(name), names)}")
        ids[int(key)] = names.index(name)
    lacking = [name for k, name in enumerate(names) if k not in ids.values()]
    if lacking:
        raise InputError(
            f"{path}: ids has no id for {some(map(repr, lacking))}; expected one or several for each class"
        )
    return ids


def _ignore(
    path: pathlib.Path, value: Any, names: list[str], stated: dict[int, int] | None, background: int | None
) -> tuple[tuple[int, ...], list[Colour]]:
    """The void ids and the void colours."""
    entries = [] if value is None else value if isinstance(value, list) else [value]
    if not all((_is_index(i) and 0 <= i <= 65535) or _is_colour(i) for i in entries):
        raise InputError(f"{path}: ignore is {value!r}, expected one id of the masks, or a list of ids and [r, g, b]")
    ids, colours = tuple(i for i in entries if _is_index(i)), [tuple(i) for i in entries if not _is_index(i)]
    if stated is not None:
        both = [i for i in ids if i in stated]
        if both:
            name = names[stated[both[0]]]
            raise InputError(f"{path}: ignore has {both[0]}, which is the id of class {name!r} by ids; leave out one")
        return ids, colours
    first = _first(ids)
    inside = [i for i in ids if first < i < first + len(names)]
    # Names that begin with void or the background include the id 0 already.
    if first and (names[0].strip().lower() in VOID or background == 0):
        first, inside = 0, [0]
    if inside:
        raise InputError(
            f"{path}: ignore has {inside[0]}, which is the id of class {names[inside[0] - first]!r}; expected ids that "
            f"are no class, from {first + len(names)}. Take the class off the list, or say which id each class has: "
            '"ids": {"1": "name", ...}'
        )
    return ids, colours


def _first(ids: tuple[int, ...]) -> int:
    return next(k for k in range(len(ids) + 1) if k not in ids)
