"""Flags that choose the type of a config's field: `--segmenter.net dsnet`."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from scarce_jax.errors import nearest


def choose_kinds(config: Any, argv: Sequence[str]) -> tuple[Any, list[str]]:
    """The config with the types that `argv` chooses, and `argv` without those flags.

    A field whose annotation is a union of dataclasses with a field `kind` takes its kind as a flag. Another kind than
    the config's starts from its own defaults; the same kind keeps the config's values. Of several flags for a field the
    last counts.

    Raises:
      SystemExit: status 2, after a message with the nearest name, where a flag names no kind of its field.
    """
    rest, position = [], 0
    while position < len(argv):
        flag, equals, value = argv[position].partition("=")
        path = flag.removeprefix("--").replace("-", "_").split(".")
        kinds = _kinds(config, path) if flag.startswith("--") else {}
        if kinds and not equals and position + 1 < len(argv):
            position += 1
            value = argv[position]
        if kinds:
            if value not in kinds:
                choices = f"{', '.join(kinds)}{nearest(value, kinds)}"
                print(f"scarce-jax: {flag}: found {value!r}, expected one of {choices}", file=sys.stderr)
                raise SystemExit(2)
            config = _replaced(config, path, kinds[value])
        else:
            rest.append(argv[position])
        position += 1
    return config, rest


def kinds_help(config: Any) -> str:
    """For --help: the kinds that each field of the config can have, one field a line; empty where none has a choice."""
    lines = [f"--{path.replace('_', '-')}: {', '.join(kinds)}" for path, kinds in _choices(config)]
    if not lines:
        return ""
    about = "Kinds of nets. Another kind starts from its own defaults; --help after its flag lists its fields."
    return "\n".join(["\n", about, *lines])


def _choices(config: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, type]]]:
    """(path, kinds) of every field below `config` whose type can be chosen."""
    for field in dataclasses.fields(config):
        path, value = prefix + field.name, getattr(config, field.name)
        kinds = _kinds(config, [field.name])
        if kinds:
            yield path, kinds
        elif dataclasses.is_dataclass(value):
            yield from _choices(value, f"{path}.")


def _kinds(config: Any, path: Sequence[str]) -> dict[str, type]:
    """kind -> type, of the field at `path`; empty where there is no such field or no choice."""
    *parents, name = path
    for parent in parents:
        config = getattr(config, parent, None)
    if not dataclasses.is_dataclass(config):
        return {}
    annotation = typing.get_type_hints(type(config)).get(name)
    if not isinstance(annotation, types.UnionType) and typing.get_origin(annotation) is not typing.Union:
        return {}
    return {member.kind: member for member in typing.get_args(annotation) if hasattr(member, "kind")}


def _replaced(config: Any, path: Sequence[str], chosen: type) -> Any:
    """The config with defaults of the type `chosen` at `path`, unless it has that type already."""
    name, *below = path
    value = getattr(config, name)
    if below:
        return dataclasses.replace(config, **{name: _replaced(value, below, chosen)})
    return config if type(value) is chosen else dataclasses.replace(config, **{name: chosen()})
