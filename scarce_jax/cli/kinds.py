"""Flags that choose the type of a field of the config: the kind of a net or its backbone, or None.

For example `--segmenter.net pspnet --segmenter.net.backbone resnet`.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from scarce_jax.errors import nearest


def choose_kinds(config: Any, argv: Sequence[str]) -> tuple[Any, list[str]]:
    """Applies the flags of `argv` that choose a kind.

    A field whose type is a union of dataclasses with a field `kind` takes its kind as a flag, and one that may hold a
    dataclass or None takes None. The config's own kind keeps the config's values; another kind starts from its
    defaults. The last of several flags for one field counts. The kind of a net is chosen before that of its backbone,
    whatever the order of their flags.

    Returns:
      The config with the chosen kinds, and `argv` without those flags.

    Raises:
      SystemExit: status 2, after a message with the most similar kind, where a kind is unknown.
    """
    rest = list(argv)
    for depth in range(1, 1 + max((word.count(".") + 1 for word in rest), default=0)):
        config, rest = _choose_at(config, rest, depth)
    return config, rest


def _choose_at(config: Any, argv: Sequence[str], depth: int) -> tuple[Any, list[str]]:
    """`choose_kinds` for the fields whose paths have so many names."""
    rest, words = [], iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        path = flag.removeprefix("--").replace("-", "_").split(".")
        kinds = _kinds(config, path) if flag.startswith("--") and len(path) == depth else {}
        if not kinds:
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if value not in kinds:
            choices = f"{', '.join(kinds)}{nearest(value, kinds)}"
            print(f"scarce-jax: {flag}: found {value!r}, expected one of {choices}", file=sys.stderr)
            raise SystemExit(2)
        config = _replaced(config, path, kinds[value])
    return config, rest


def kinds_help(config: Any) -> str:
    """For --help: one line per field with its kinds; empty if no field has a choice."""
    lines = [f"--{path.replace('_', '-')}: {', '.join(kinds)}" for path, kinds in _choices(config)]
    if not lines:
        return ""
    about = (
        "Kinds of nets and backbones. Another kind starts from its own defaults; --help after its flag lists its "
        "fields. None leaves a part out."
    )
    return "\n".join(["\n", about, *lines])


def _choices(config: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, type]]]:
    """(path, kinds) of every nested field of `config` with a choice."""
    for field in dataclasses.fields(config):
        path, value = prefix + field.name, getattr(config, field.name)
        kinds = _kinds(config, [field.name])
        if kinds and not (value is None and kinds.keys() == {"None"}):
            yield path, kinds
        if dataclasses.is_dataclass(value):
            yield from _choices(value, f"{path}.")


def _kinds(config: Any, path: Sequence[str]) -> dict[str, type]:
    """Kind -> type of the field at `path`; empty if there is no such field, or no choice."""
    *parents, name = path
    for parent in parents:
        config = getattr(config, parent, None)
    if not dataclasses.is_dataclass(config):
        return {}
    annotation = typing.get_type_hints(type(config)).get(name)
    if not isinstance(annotation, types.UnionType) and typing.get_origin(annotation) is not typing.Union:
        return {}
    members = typing.get_args(annotation)
    kinds = {member.kind: member for member in members if hasattr(member, "kind")}
    if type(None) in members and any(map(dataclasses.is_dataclass, members)):
        kinds["None"] = type(None)
    return kinds


def _replaced(config: Any, path: Sequence[str], chosen: type) -> Any:
    """The config with the defaults of `chosen` at `path`, unless the field has that type already."""
    name, *below = path
    value = getattr(config, name)
    if below:
        return dataclasses.replace(config, **{name: _replaced(value, below, chosen)})
    return config if type(value) is chosen else dataclasses.replace(config, **{name: chosen()})
