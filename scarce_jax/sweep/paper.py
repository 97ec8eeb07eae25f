"""The figures of a paper in `config.paper`, and the settings that they hold for.

`config.paper` maps

- the name of a result to its figures with the settings of the config file;
- the name of a table to its columns, lists with an entry for each row. A column whose name is a field of the config, or
  several fields joined by "+", holds settings. "split" holds the split that the figures are of, where that is another
  than the config's. Every other column holds figures of the result with its name, None where the paper has none;
- "figure" to the figure that a single number stands for: "miou" (the default), or "miou_at_size" where the paper
  measures at the size of the prediction;
- "gains" to mean differences between two results that the paper states: {"table", "rows": first settings of the rows,
  "of", "less": results, "paper": the figure}.

Figures of a result are a single number, or {figure or class: number}. In place of a result there may be a table of the
method, such as `selection`; its figures are {row: {column: number}}. Shares are 0 to 1.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from scarce_jax.config_files import has_effect, leaves, to_json
from scarce_jax.data import figures as figures_lib
from scarce_jax.errors import InputError

PAPER = "paper."
"""Prefix of the keys of a sweep's `over` that are tables of `config.paper`."""

SPLIT = "split"
"""The column of a table with the split that its figures are of."""

SEEDS = ("seed", "budget.seed")
"""Fields that are no settings of the paper: another seed is a repeat."""


def tables(config: Any) -> dict[str, dict[str, list]]:
    """The tables of a config's `paper`: name -> column -> entries, one per row.

    Raises:
      InputError: the columns of a table differ in length.
    """
    paper = to_json(config)["paper"]
    named = {
        name: table
        for name, table in paper.items()
        if isinstance(table, dict) and table and all(isinstance(column, list) for column in table.values())
    }
    for name, table in named.items():
        lengths = {column: len(entries) for column, entries in table.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"config field paper.{name}: its columns have {lengths} entries; make them equally long")
    return named


def settings(config: Any, table: Mapping[str, list]) -> dict[str, tuple[str, ...]]:
    """The columns of a table that hold settings: column -> the config fields that it sets."""
    return _settings(leaves(to_json(config)).keys(), table)


def _settings(fields: Collection[str], table: Mapping[str, list]) -> dict[str, tuple[str, ...]]:
    columns = {column: tuple(column.split("+")) for column in table}
    return {column: names for column, names in columns.items() if set(names) <= fields}


def changed_settings(config: Any, original: Any) -> set[str]:
    """The fields in which two configs differ, without seeds and fields that change no result."""
    here, there = leaves(to_json(config)), leaves(to_json(original))
    fields = set(filter(has_effect, {*here, *there}))
    return {field for field in fields.difference(SEEDS) if here.get(field) != there.get(field)}


def own_figures(config: Any, original: Any) -> Any:
    """The config without figures of the paper for another dataset, budget or evaluation split than its own.

    Args:
      original: the config of the file, which states the figures.
    """
    parts = ("dataset", "budget", "eval_split")
    data = {f for f in changed_settings(config, original) if f.partition(".")[0] in parts}
    if not data:
        return config
    stating = {
        name: table
        for name, table in tables(config).items()
        if data <= {field for fields in settings(config, table).values() for field in fields}
    }
    about = {key: config.paper[key] for key in ("figure", "gains") if key in config.paper and stating}
    return dataclasses.replace(config, paper=about | stating)


def figures(config: Any, original: Any, table: str | None = None) -> dict[str, dict[str, Any]]:
    """The paper's figures for a config: result -> figure or class -> number; {} unless its settings are the paper's.

    Figures of another split than the config's are left out.

    Args:
      original: the config that states the figures; those outside its tables hold for its own settings.
      table: the table that is swept. If the paper has several figures for the same settings, those in it are meant.
    """
    holding = {} if changed_settings(config, original) else figures_lib.cited(original.paper)
    for name, split, stated in _matching_rows(config, original):
        if split == config.eval_split:
            holding = holding | stated if name == table else stated | holding
    return holding


def row_of(config: Any, original: Any, table: str) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """What a table of the paper has for a config: the split that its figures are of, and the figures."""
    rows = [row[1:] for row in _matching_rows(config, original) if row[0] == table]
    return rows[0] if rows else (config.eval_split, {})


def shown(columns: Mapping[str, tuple[str, ...]], row: Mapping[str, Any]) -> tuple[str, ...]:
    """The results of which a row of a table has figures; `columns` are those of `settings`."""
    return tuple(column for column, entry in row.items() if column not in (*columns, SPLIT) and entry is not None)


def _matching_rows(config: Any, original: Any) -> Iterator[tuple[str, str | None, dict[str, dict[str, Any]]]]:
    """The rows of all tables whose settings a config has: name of the table, split, figures by result."""
    changed, here = changed_settings(config, original), leaves(to_json(config))
    for name, table in tables(original).items():
        columns = _settings(here.keys(), table)
        if changed - {field for names in columns.values() for field in names}:
            continue
        for row in rows_of(table):
            if columns and all(here[field] == row[column] for column, names in columns.items() for field in names):
                stated = {result: figures_lib.in_full(row[result], original.paper) for result in shown(columns, row)}
                yield name, row.get(SPLIT, config.eval_split), stated


def departures(config: Any, original: Any, path: str | os.PathLike = "CONFIG") -> list[str]:
    """Settings of the file that the paper changes together with one that a config changes, in words.

    Such as the number of steps, if the budget is that of another row of a table.

    Args:
      original: the config of the file `path`, which states the figures.
    """
    changed, here = changed_settings(config, original), leaves(to_json(config))
    lines: list[str] = []
    told: list[dict[str, Any]] = []
    for name, columns in tables(original).items():
        fields = _settings(here.keys(), columns)
        first = next(iter(fields), None)
        if first is None or changed.isdisjoint(fields[first]):
            continue
        alike = [row for row in rows_of(columns) if all(here[field] == row[first] for field in fields[first])]
        unchanged = [
            {
                field: row[column]
                for column, names in fields.items()
                for field in names
                if here[field] != row[column] and field not in changed
            }
            for row in alike
        ]
        if unchanged and all(unchanged) and not any(unchanged[0].items() <= earlier.items() for earlier in told):
            told.append(unchanged[0])
            stated = ", ".join(f"{field} {value!r} (here {here[field]!r})" for field, value in unchanged[0].items())
            axis = f"{PAPER}{name}={text(alike[0][first])}"
            lines.append(
                f"{first} {alike[0][first]!r}: the paper's {name} has it with {stated}; set these too, or train it "
                f"with `{shlex.join(['scarce-jax', 'sweep', str(path), '--over', axis])}`"
            )
    return lines


def text(value: Any) -> str:
    """A value as shown in folder names, tables and plots."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "x".join(text(part) for part in value) or "empty"
    return str(value)


def rows_of(table: Mapping[str, list]) -> list[dict[str, Any]]:
    """The rows of a table: column -> entry."""
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
