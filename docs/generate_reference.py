"""Writes reference/commands.md, reference/config_fields.md and reference/python.md from the package itself.

    python docs/generate_reference.py

A test fails while a page is not what this writes. The prose around the tables stands in reference_prose.toml.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import inspect
import pathlib
import re
import sys
import tomllib
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from unittest import mock

import docstring_parser
import tyro

DOCS = pathlib.Path(__file__).parent
# The package of this checkout, and not an installed one.
sys.path.insert(0, str(DOCS.parent))

import scarce_jax  # noqa: E402
from scarce_jax import cli, methods, ranges  # noqa: E402
from scarce_jax.methods.common import Experiment, TrainStage  # noqa: E402
from scarce_jax.models.fields import BackboneConfig, NetConfig  # noqa: E402

PROSE = tomllib.loads((DOCS / "reference_prose.toml").read_text())
GENERATED = "<!-- Written by docs/generate_reference.py; change what it reads in its place. -->"


def pages() -> dict[pathlib.Path, str]:
    """Each page that this writes, and its text."""
    texts = {"commands": commands_page(), "config_fields": fields_page(), "python": python_page()}
    return {DOCS / "reference" / f"{name}.md": f"{GENERATED}\n\n{text}\n" for name, text in texts.items()}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def prose(text: str) -> str:
    """A docstring's text as Markdown: what is not in code spans has no other meaning."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(re.sub(r"([*<\[\]])", r"\\\1", part) if k % 2 == 0 else part for k, part in enumerate(parts))


def in_line(text: str) -> str:
    """The same in one line, for a list."""
    return prose(" ".join(text.split()))


def in_cell(text: str) -> str:
    """The same for a table."""
    return in_line(text).replace("|", "\\|")


def documented(kind: type) -> dict[str, str]:
    """Field -> its text in the docstring of a dataclass, or of the nearest base that has one."""
    texts: dict[str, str] = {}
    for base in kind.__mro__:
        for entry in docstring_parser.parse(vars(base).get("__doc__") or "").params:
            for name in entry.arg_name.split(", "):
                texts.setdefault(name, entry.description or "")
    return texts


# Commands.


class _Reached(BaseException):
    """Ends a command where its words are read."""


def parser_of(name: str) -> tuple[type, str]:
    """The dataclass of a command's words, and its description."""

    def reached(options: type, *, description: str, **_: Any) -> None:
        raise _Reached(options, description)

    with mock.patch.object(tyro, "cli", reached):
        try:
            importlib.import_module(f"scarce_jax.cli.{name}").main([])
        except _Reached as found:
            return found.args
    raise RuntimeError(f"scarce-jax {name} reads its words in another way than `tyro.cli`")


def flags(kind: type) -> Iterator[tuple[bool, str, str, str]]:
    """(positional, how it is written, default, text) of each field; a field without a name has its own in its place."""
    texts = documented(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, annotation in ranges.annotations(kind).items():
        base, marks = ranges.split(annotation)
        keys = ("name", "metavar", "help")
        said = {key: value for mark in marks for key in keys if (value := getattr(mark, key, None))}
        if any(getattr(mark, "name", None) == "" for mark in marks):
            yield from flags(base)
            continue
        positional = tyro.conf.Positional in marks
        written = f"--{said.get('name', name).replace('_', '-')}"
        metavar = said.get("metavar") or "|".join(map(str, typing.get_args(base))) or base.__name__.upper()
        if positional:
            written = metavar
        elif base is not bool:
            written += f" {metavar}"
        field = fields[name]
        required = field.default is field.default_factory is dataclasses.MISSING
        shown = field.default if field.default not in (None, False, (), dataclasses.MISSING) else None
        default = "required" if required else f"`{shown}`" if shown is not None else ""
        yield positional, written, default, in_cell(said.get("help") or texts.get(name, ""))


def commands_page() -> str:
    parts = ["# Commands", PROSE["commands"]["intro"]]
    parts.append(table(("command", "does"), ((f"[`{name}`](#{name})", what) for name, what in cli.COMMANDS.items())))
    for name in cli.COMMANDS:
        options, description = parser_of(name)
        found = sorted(flags(options), key=lambda flag: not flag[0])
        needed = [
            written if default == "required" or written.startswith("[") else f"[{written}]"
            for positional, written, default, _ in found
            if positional or default == "required"
        ]
        usage = PROSE["usage"].get(name) or " ".join(needed)
        parts += [f"## {name}", description, f"```\n{f'scarce-jax {name} {usage}'.strip()}\n```"]
        # In code a bar needs no escape, but in a table it does.
        rows = ((f"`{written.replace('|', chr(92) + '|')}`", default, text) for _, written, default, text in found)
        parts.append(table(("argument", "default", ""), rows))
        if name in PROSE["commands"]:
            parts.append(PROSE["commands"][name].strip())
    return "\n\n".join(part.strip() for part in parts)


# Config fields.


def nested(annotation: Any) -> Iterator[type]:
    """The dataclasses that a value of an annotation may be or hold."""
    for option in ranges.options(annotation):
        base, _ = ranges.split(option)
        if dataclasses.is_dataclass(base):
            yield base
        elif typing.get_origin(base) is tuple:
            yield from (kind for member in typing.get_args(base) if member is not Ellipsis for kind in nested(member))


def reachable() -> list[type]:
    """Every config class below those of the methods, and their bases, in the order of the fields."""
    found: dict[type, None] = {}

    def visit(kind: type) -> None:
        if kind in found:
            return
        found[kind] = None
        for annotation in ranges.annotations(kind).values():
            for below in nested(annotation):
                visit(below)
        for base in kind.__bases__:
            if dataclasses.is_dataclass(base):
                visit(base)

    for name in methods.NAMES:
        visit(methods.by_name(name).Config)
    return list(found)


def headings(kinds: Sequence[type]) -> dict[type, str]:
    """A heading for each class: its name, with the method where two methods have one."""
    several = {name for name, count in collections.Counter(kind.__name__ for kind in kinds).items() if count > 1}

    def heading(kind: type) -> str:
        if kind.__name__ == "Config" and issubclass(kind, Experiment):
            return method_of(kind)
        if has_kind(kind):
            return f"{kind.kind} net" if kind.kind in methods.NAMES else kind.kind
        return f"{kind.__name__} of {method_of(kind)}" if kind.__name__ in several else kind.__name__

    return {kind: heading(kind) for kind in kinds}


def has_kind(kind: type) -> bool:
    """Whether it is a net or backbone that a flag can choose, and no base of several."""
    return issubclass(kind, NetConfig | BackboneConfig) and isinstance(getattr(kind, "kind", None), str)


def method_of(kind: type) -> str:
    return kind.__module__.removeprefix("scarce_jax.methods.").split(".")[0]


UNBOUNDED = re.compile(r"( to| and at most) (2,147,483,647|4,294,967,295|1,000,000,000,000)")


def takes(annotation: Any, names: dict[type, str]) -> str:
    """What a field takes, in words, with links to the classes."""
    words = []
    for option in ranges.options(annotation):
        base, _ = ranges.split(option)
        classes = list(nested(option))
        if dataclasses.is_dataclass(base):
            words.append(link(names[base]))
        elif classes:
            words.append(f"a tuple of {' or '.join(link(names[kind]) for kind in classes)}")
        else:
            # Bounds that only keep infinity out say nothing to a reader.
            words.append(in_line(UNBOUNDED.sub("", ranges.in_words(option))))
    return " or ".join(dict.fromkeys(words))


def link(name: str) -> str:
    return f"[{name}](#{name.lower().replace(' ', '-')})"


def default_of(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    if dataclasses.is_dataclass(value):
        changed = [
            f"{one.name}={getattr(value, one.name)!r}"
            for one in dataclasses.fields(value)
            if one.name != "kind" and getattr(value, one.name) != one.default
        ]
        # What is nested deeper is said by its own class.
        changed = [text for text in changed if "(" not in text.replace("=(", "=")]
        name = value.kind if has_kind(type(value)) else type(value).__name__
        return in_line(f"default {name}{' with ' if changed else ''}{', '.join(changed)}")
    return f"default `{value!r}`"


def section(kind: type, names: dict[type, str]) -> str:
    """Heading, docstring and own fields of a class."""
    doc = docstring_parser.parse(kind.__doc__ or "")
    parts = [f"### {names[kind]}", *map(prose, filter(None, (doc.short_description, doc.long_description)))]
    bases = [base for base in kind.__bases__ if base in names and dataclasses.fields(base)]
    own = [field for field in dataclasses.fields(kind) if field.name in vars(kind).get("__annotations__", {})]
    # The kind is chosen by the flag of the net, and not by one of its own.
    own = [field for field in own if not (field.name == "kind" and has_kind(kind))]
    texts, annotations = documented(kind), ranges.annotations(kind)
    lines = []
    for field in own:
        settings = f"{takes(annotations[field.name], names)}; {default_of(field)}"
        lines.append(f"- `{field.name}` ({settings}): {in_line(texts.get(field.name, ''))}")
    if lines:
        parts.append("\n".join(lines))
    if bases:
        parts.append(f"And the fields of {' and '.join(link(names[base]) for base in bases)}.")
    return "\n\n".join(parts)


def fields_page() -> str:
    kinds = reachable()
    names = headings(kinds)
    groups = {
        "Methods": lambda kind: issubclass(kind, Experiment) and kind is not Experiment,
        "Every method": lambda kind: kind is Experiment,
        "Training stages": lambda kind: issubclass(kind, TrainStage),
        "Nets": lambda kind: issubclass(kind, NetConfig),
        "Backbones": lambda kind: issubclass(kind, BackboneConfig),
        "Parts of these": lambda kind: True,
    }
    parts, left = ["# Config fields", PROSE["config_fields"]["intro"].strip()], kinds
    for title, belongs in groups.items():
        members = [kind for kind in left if belongs(kind)]
        left = [kind for kind in left if kind not in members]
        parts += [f"## {title}", *(section(kind, names) for kind in members)]
    return "\n\n".join(parts)


# Python.


def function(name: str, value: Any) -> str:
    """Heading, signature and docstring of a function or class."""
    doc = docstring_parser.parse(value.__doc__ or "")
    parts = [f"## {name}"]
    if inspect.isfunction(value):
        parts.append(f"```python\n{signature(name, value)}\n```")
    parts += map(prose, filter(None, (doc.short_description, doc.long_description)))
    if doc.params:
        parts.append("\n".join(f"- `{p.arg_name}`: {in_line(p.description or '')}" for p in doc.params))
    if doc.returns:
        # The parser takes what stands before the first colon for a type.
        parts.append(f"Returns {in_line(': '.join(filter(None, (doc.returns.type_name, doc.returns.description))))}")
    parts += [f"Raises {raised.type_name}: {in_line(raised.description or '')}" for raised in doc.raises]
    return "\n\n".join(parts)


def signature(name: str, value: Any) -> str:
    """The call, one argument a line, with annotations as they are written in the source."""
    given = inspect.signature(value)
    lines = []
    for p in given.parameters.values():
        if p.kind is p.KEYWORD_ONLY and "*" not in lines:
            lines.append("*")
        if p.name != "self":
            lines.append(f"{p.name}: {p.annotation}" + ("" if p.default is p.empty else f" = {p.default!r}"))
    return f"{name}(\n{''.join(f'    {line},{chr(10)}' for line in lines)}) -> {given.return_annotation}"


def python_page() -> str:
    from scarce_jax.runs import Predictor

    parts = ["# Python", PROSE["python"]["intro"].strip()]
    parts += [function(f"scarce_jax.{name}", getattr(scarce_jax, name)) for name in scarce_jax.__all__]
    parts.append(function("Predictor", Predictor))
    parts += [function(f"Predictor.{name}", getattr(Predictor, name)) for name in PROSE["python"]["predictor"]]
    return "\n\n".join(parts)


def main() -> None:
    (DOCS / "reference").mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
