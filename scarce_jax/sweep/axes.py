"""The axes of a sweep, and one config per combination of their values."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scarce_jax import methods
from scarce_jax.config_files import from_json, leaves, to_json
from scarce_jax.errors import InputError, nearest
from scarce_jax.sweep.paper import PAPER, rows_of, settings, shown, tables, text

SEED = "seed"
"""Combinations that differ only in the axis with this field are repeats: one row of the table."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """Config fields that change together.

    Attributes:
      fields: dotted paths.
      values: one tuple per point of the axis, in the order of the fields.
      table: the table of the paper whose rows the points are, or None.
      results: for each point, the results of which that table has figures; () for all.
    """

    fields: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    table: str | None = None
    results: tuple[tuple[str, ...], ...] = ()

    @property
    def repeats(self) -> bool:
        return SEED in self.fields


@dataclasses.dataclass(frozen=True)
class Combination:
    """One run of a sweep.

    Attributes:
      name: name of its run folder, `<field>=<value>,<field>=<value>`.
      row: field -> value, without the axis of repeats.
      table: the table of the paper of which it is a row, or None.
    """

    name: str
    row: Mapping[str, Any]
    config: Any
    table: str | None = None


def combine(config: Any, over: Mapping[str, Sequence[Any] | None]) -> tuple[list[Axis], list[Combination]]:
    """The axes of `over` (see `sweep`), and the product of their values.

    A row of a table of the paper wants the results of which the table has figures, unless the config names others.

    Raises:
      InputError: a field is unknown, swept twice or changes no result; an axis has no values or equal ones; or a value
        or a combination is not valid in the config.
    """
    if not over:
        raise InputError("sweep: no field to sweep; give at least one --over FIELD=V1,V2")
    axes = [_axis(config, key, values) for key, values in over.items()]
    fields = [field for axis in axes for field in axis.fields]
    twice = sorted({field for field in fields if fields.count(field) > 1})
    if twice:
        raise InputError(f"sweep: {', '.join(twice)} is swept twice; give it in one --over only")
    repeated = {field for axis in axes if axis.repeats for field in axis.fields}
    table = next((axis.table for axis in axes if axis.table), None)
    combinations = []
    for places in itertools.product(*(range(len(axis.values)) for axis in axes)):
        point = [axis.values[place] for axis, place in zip(axes, places, strict=True)]
        values = dict(zip(fields, itertools.chain.from_iterable(point), strict=True))
        wanted = [name for axis, place in zip(axes, places, strict=True) if axis.table for name in axis.results[place]]
        name = _folder(values.items())
        changed = to_json(config)
        for field, value in values.items():
            _put(changed, field, value)
        changed["results"] = changed["results"] or wanted
        try:
            run_config = from_json(methods.name_of(config), changed)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        row = {field: value for field, value in values.items() if field not in repeated}
        combinations.append(Combination(name, row, run_config, table))
    return axes, combinations


def _axis(config: Any, key: str, values: Sequence[Any] | None) -> Axis:
    results: list[tuple[str, ...]] = []
    if key.startswith(PAPER):
        fields, points, results = _paper_rows(config, key, values)
    else:
        fields = tuple(field.strip().replace("-", "_") for field in key.split("+"))
        points = [tuple(value) if len(fields) > 1 else (value,) for value in values or ()]
    known = leaves(to_json(config))
    for field in fields:
        if field not in known:
            raise InputError(f"sweep: the config has no field {field!r} with a value of its own{nearest(field, known)}")
        if field.startswith("runtime."):
            raise InputError(f"sweep: {field} changes no result; give it a single value with --{field}")
    for point in points:
        if len(point) != len(fields):
            raise InputError(f"sweep: {key} needs {len(fields)} values joined by +, found {len(point)} in {point}")
    if not points:
        raise InputError(f"sweep: {key} has no values; give --over {key}=V1,V2")
    written = ["+".join(text(value) for value in point) for point in points]
    twice = sorted({value for value in written if written.count(value) > 1})
    if twice:
        raise InputError(f"sweep: {key} has the value {twice[0]} twice; give each value once")
    return Axis(fields, tuple(points), key.removeprefix(PAPER) if key.startswith(PAPER) else None, tuple(results))


def _paper_rows(
    config: Any, key: str, firsts: Sequence[Any] | None
) -> tuple[tuple[str, ...], list[tuple], list[tuple[str, ...]]]:
    """The fields that a table of the paper sets, their values in each row, and the results that each row shows.

    Args:
      firsts: the first values of the rows; None takes all rows.
    """
    known = tables(config)
    name = key.removeprefix(PAPER)
    if name not in known:
        listed = ", ".join(PAPER + table for table in known) or "none"
        raise InputError(f"sweep: the config has no table {key}; it has {listed}")
    columns = settings(config, known[name])
    if not columns:
        raise InputError(
            f"sweep: no column of {key} is a field of the config: {', '.join(known[name])}; name a column as a field"
        )
    fields = tuple(field for names in columns.values() for field in names)
    rows: dict[str, list[tuple[tuple, tuple[str, ...]]]] = {}
    for row in rows_of(known[name]):
        point = tuple(row[column] for column, names in columns.items() for _ in names)
        rows.setdefault(text(point[0]), []).append((point, shown(columns, row)))
    chosen = rows if firsts is None else [text(first) for first in firsts]
    unknown = [first for first in chosen if first not in rows]
    if unknown:
        raise InputError(f"sweep: {key} has no row {', '.join(unknown)}; it has {', '.join(rows)}")
    taken = [row for first in chosen for row in rows[first]]
    return fields, [point for point, _ in taken], [results for _, results in taken]


def _put(values: Any, field: str, value: Any) -> None:
    *path, last = field.split(".")
    for part in path:
        values = values[int(part)] if isinstance(values, list) else values[part]
    values[last] = list(value) if isinstance(value, tuple) else value


def _folder(named: Iterable[tuple[str, Any]]) -> str:
    """A folder name for any file system; a value that had to be changed or shortened ends in a hash."""
    name = ",".join(f"{label}={_legible(text(value))}" for label, value in named)
    return name if len(name.encode()) <= 200 else f"{name[:150]}-{_hash(name)}"


def _legible(shown: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.+-]+", "-", shown)
    return plain if plain == shown and len(plain) <= 40 else f"{plain[-32:].strip('-.')}-{_hash(shown)}"


def _hash(shown: str) -> str:
    return hashlib.sha256(shown.encode()).hexdigest()[:6]
