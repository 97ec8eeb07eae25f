"""What a sweep runs: its axes, and one config per combination of their values."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scarce_jax import methods
from scarce_jax.config_files import from_json, to_json
from scarce_jax.errors import InputError

SEED = "seed"
"""Combinations that differ in the axis with this field alone are repeats of one another: one row of the table."""

PAPER = "paper."
"""What a key of `over` begins with that names a table of `config.paper`."""

DATA = ("dataset", "budget")
"""Fields of a config that say what it is trained on."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """Settings that change together.

    Attributes:
      fields: label -> the config fields that it sets; a label is the field itself, or a column of a paper's table.
      values: one tuple per point of the axis, in the order of the labels.
    """

    fields: Mapping[str, tuple[str, ...]]
    values: tuple[tuple[Any, ...], ...]

    @property
    def repeats(self) -> bool:
        return SEED in self.fields


@dataclasses.dataclass(frozen=True)
class Combination:
    """One run of a sweep.

    Attributes:
      name: of its run folder, `<label>=<value>,<label>=<value>`.
      row: label -> value of every axis that is no repeat.
    """

    name: str
    row: Mapping[str, Any]
    config: Any


def combine(config: Any, over: Mapping[str, Sequence[Any] | None]) -> tuple[list[Axis], list[Combination]]:
    """The axes that `over` names, and the product of their values; see `sweep` for `over`.

    Raises:
      InputError: an unknown field, or one that is named twice or changes no result; no values, or equal ones; values
        that do not fit their field or, together, no config.
    """
    values = to_json(config)
    axes = [_axis(values, key, given) for key, given in over.items()]
    if not axes:
        raise InputError("sweep: no field to sweep; give at least one --over FIELD=V1,V2")
    fields = [field for axis in axes for targets in axis.fields.values() for field in targets]
    twice = sorted({field for field in fields if fields.count(field) > 1})
    if twice:
        raise InputError(f"sweep: {', '.join(twice)} is swept twice; name it in one --over alone")
    labels = [label for axis in axes for label in axis.fields]
    repeated = {label for axis in axes if axis.repeats for label in axis.fields}
    targets = {label: targets for axis in axes for label, targets in axis.fields.items()}
    method, found = methods.name_of(config), []
    for point in itertools.product(*(axis.values for axis in axes)):
        changed = to_json(config)
        named = list(zip(labels, itertools.chain.from_iterable(point), strict=True))
        for label, value in named:
            for field in targets[label]:
                _put(changed, field, value)
        name = _folder(named)
        try:
            made = from_json(method, changed)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        row = {label: value for label, value in named if label not in repeated}
        found.append(Combination(name, row, made))
    return axes, found


def leaves(values: Any, path: str = "") -> dict[str, Any]:
    """Every field of a config's JSON that holds a value, by dotted path; without `paper`."""
    if isinstance(values, list) and any(isinstance(value, dict) for value in values):
        values = {str(i): value for i, value in enumerate(values)}
    if not isinstance(values, dict):
        return {path: values}
    found = {}
    for key, value in values.items():
        where = f"{path}.{key}" if path else key
        if where != "paper":
            found |= leaves(value, where)
    return found


def paper_tables(values: Mapping[str, Any]) -> dict[str, dict[str, list]]:
    """The tables of a config's `paper`: name -> column -> its entries, one per row.

    Raises:
      InputError: a table has columns of unequal length.
    """
    found = {name: table for name, table in values["paper"].items() if isinstance(table, dict)}
    for name, table in found.items():
        lengths = {column: len(entries) for column, entries in table.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"config field paper.{name}: its columns have {lengths} entries; expected equally many")
    return found


def without_foreign_figures(config: Any, original: Any) -> Any:
    """The config without what of `paper` is of the original's dataset and budget, and not of its own.

    A table stays if it states every field in which they differ. Another seed draws another budget of the same size.
    """
    here, there = leaves(to_json(config)), leaves(to_json(original))
    fields = {key for key in {*here, *there} if key.partition(".")[0] in DATA and key != "budget.seed"}
    changed = {key for key in fields if here.get(key) != there.get(key)}
    if not changed:
        return config
    values, kept = to_json(config), {}
    for name, table in paper_tables(values).items():
        if changed <= {field for fields in coordinates(values, table).values() for field in fields}:
            kept[name] = table
    return dataclasses.replace(config, paper=kept)


def coordinates(values: Mapping[str, Any], table: Mapping[str, list]) -> dict[str, tuple[str, ...]]:
    """The columns of a paper's table that are settings: column -> the config fields of that name.

    A column `steps` stands for `<stage>.steps` of every stage that the table has a column of figures for, and for every
    field of that name where there is none.
    """
    known, found = leaves(values), {}
    for column in table:
        fields = [field for field in known if field == column or field.endswith(f".{column}")]
        fields = [f for f in fields if not f.startswith("runtime.")]
        staged = [field for field in fields if field.partition(".")[0] in table]
        if fields:
            found[column] = tuple(staged or fields)
    return found


def _axis(values: Mapping[str, Any], key: str, given: Sequence[Any] | None) -> Axis:
    if key.startswith(PAPER):
        return _paper_axis(values, key, given)
    fields = [field.strip().replace("-", "_") for field in key.split("+")]
    known = leaves(values)
    for field in fields:
        if field not in known:
            near = difflib.get_close_matches(field, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"sweep: the config has no field {field!r} with a value of its own{hint}")
        if field.startswith("runtime."):
            raise InputError(f"sweep: {field} changes no result; give it once, as --{field}")
    points = [tuple(value) if len(fields) > 1 else (value,) for value in given or ()]
    for point in points:
        if len(point) != len(fields):
            raise InputError(f"sweep: {key} needs {len(fields)} values joined by +, found {len(point)} in {point}")
    return _checked(key, Axis({field: (field,) for field in fields}, tuple(points)))


def _paper_axis(values: Mapping[str, Any], key: str, given: Sequence[Any] | None) -> Axis:
    tables = paper_tables(values)
    name = key.removeprefix(PAPER)
    if name not in tables:
        known = ", ".join(PAPER + table for table in tables) or "none"
        raise InputError(f"sweep: the config has no table {key}; it has {known}")
    fields = coordinates(values, tables[name])
    if not fields:
        raise InputError(f"sweep: no column of {key} is a field of the config ({', '.join(tables[name])})")
    rows = list(zip(*(tables[name][column] for column in fields), strict=True))
    if given is not None:
        firsts = {str(row[0]): row for row in rows}
        unknown = [str(value) for value in given if str(value) not in firsts]
        if unknown:
            raise InputError(f"sweep: {key} has no row {', '.join(unknown)}; it has {', '.join(firsts)}")
        rows = [firsts[str(value)] for value in given]
    return _checked(key, Axis(fields, tuple(rows)))


def _checked(key: str, axis: Axis) -> Axis:
    if not axis.values:
        raise InputError(f"sweep: {key} has no values; give --over {key}=V1,V2")
    shown = ["+".join(text(value) for value in point) for point in axis.values]
    twice = sorted({value for value in shown if shown.count(value) > 1})
    if twice:
        raise InputError(f"sweep: {key} has the value {twice[0]} twice")
    return axis


def _put(values: Any, field: str, value: Any) -> None:
    *path, last = field.split(".")
    for part in path:
        values = values[int(part)] if isinstance(values, list) else values[part]
    values[last] = list(value) if isinstance(value, tuple) else value


def text(value: Any) -> str:
    """A value as folders, tables and plots show it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "x".join(text(item) for item in value) or "empty"
    return str(value)


def _folder(named: Iterable[tuple[str, Any]]) -> str:
    """A folder name that every file system takes; what had to be changed or cut for it carries a hash."""
    name = ",".join(f"{label}={_legible(text(value))}" for label, value in named)
    return name if len(name.encode()) <= 200 else f"{name[:150]}-{_hash(name)}"


def _legible(shown: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.+-]+", "-", shown)
    return plain if plain == shown and len(plain) <= 40 else f"{plain[-32:].strip('-.')}-{_hash(shown)}"


def _hash(shown: str) -> str:
    return hashlib.sha256(shown.encode()).hexdigest()[:6]
