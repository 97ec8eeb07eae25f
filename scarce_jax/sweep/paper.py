"""The figures of a paper in `config.paper`, and the settings that they hold for.

`config.paper` maps a result to its mIoU with the settings of the config file, and the name of a table to its columns. A
column whose name is a field of the config, or several fields joined by "+", holds settings. Every other column holds
the mIoU of the result with its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from scarce_jax.config_files import WITHOUT_EFFECT, leaves, to_json
from scarce_jax.errors import InputError

PAPER = "paper."
"""Prefix of the keys of a sweep's `over` that are tables of `config.paper`."""

SEEDS = ("seed", "budget.seed")
"""Fields that are no settings of the paper: another seed is a repeat."""


def tables(config: Any) -> dict[str, dict[str, list]]:
    """The tables of a config's `paper`: name -> column -> entries, one per row.

    Raises:
      InputError: the columns of a table differ in length.
    """
    named = {name: table for name, table in to_json(config)["paper"].items() if isinstance(table, dict)}
    for name, table in named.items():
        lengths = {column: len(entries) for column, entries in table.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"config field paper.{name}: its columns have {lengths} entries; make them equally long")
    return named


def settings(config: Any, table: Mapping[str, list]) -> dict[str, tuple[str, ...]]:
    """The columns of a table that hold settings: column -> the config fields that it sets."""
    known = leaves(to_json(config))
    columns = {column: tuple(column.split("+")) for column in table}
    return {column: fields for column, fields in columns.items() if set(fields) <= known.keys()}


def changed_settings(config: Any, original: Any) -> set[str]:
    """The fields in which two configs differ, without seeds and fields that change no result."""
    here, there = leaves(to_json(config)), leaves(to_json(original))
    fields = {field for field in {*here, *there} if field.partition(".")[0] not in WITHOUT_EFFECT}
    return {field for field in fields.difference(SEEDS) if here.get(field) != there.get(field)}


def own_figures(config: Any, original: Any) -> Any:
    """The config without figures of the paper for another dataset or budget than its own.

    Args:
      original: the config of the file, which states the figures.
    """
    data = {f for f in changed_settings(config, original) if f.partition(".")[0] in ("dataset", "budget")}
    if not data:
        return config
    stating = {
        name: table
        for name, table in tables(config).items()
        if data <= {field for fields in settings(config, table).values() for field in fields}
    }
    return dataclasses.replace(config, paper=stating)


def figures(config: Any, original: Any) -> dict[str, float]:
    """The paper's figures for a config: result -> mIoU; empty unless every setting is the paper's.

    Args:
      original: the config that states the figures; those outside its tables hold for its own settings.
    """
    changed, here = changed_settings(config, original), leaves(to_json(config))
    single = {name: value for name, value in original.paper.items() if isinstance(value, float)}
    cited = {} if changed else single
    for table in tables(original).values():
        columns = settings(original, table)
        if changed - {field for fields in columns.values() for field in fields}:
            continue
        for row in zip(*table.values(), strict=True):
            values = dict(zip(table, row, strict=True))
            if columns and all(here[field] == values[column] for column in columns for field in columns[column]):
                cited = cited | {column: value for column, value in values.items() if column not in columns}
    return cited
