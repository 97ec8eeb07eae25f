"""The table of a sweep: one row per combination, mean and spread over its repeats, the paper's figures beside them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scarce_jax import methods
from scarce_jax.config_files import to_json
from scarce_jax.evaluation.confusion import is_group_figure
from scarce_jax.sweep.axes import Axis, Combination, coordinates, leaves, paper_tables

FORMAT = 1
MASKS = ("miou", "mean_accuracy", "pixel_accuracy")
TAGS = ("map", "mean_f1")
"""Figures of results that are masks, and of those that are image tags; the foremost first."""


def make_table(
    config: Any,
    axes: Sequence[Axis],
    runs: Sequence[Combination],
    summaries: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """The content of table.json.

    Args:
      config: the config that the sweep changes.
      summaries: run -> its summary.json, of the runs that are done.
      failed: run -> why it could not be done.

    Returns:
      {"format", "method", "dataset", "split", "axes", "rows", "failed", "missing"}. A row is {"values", "runs",
      "results", "paper_differs"}; a result {"miou", "mean_accuracy", "pixel_accuracy", "paper"}, with "miou_<group>"
      where the method has groups of classes, or of image tags {"map", "mean_f1", "paper"}; each figure is {"mean",
      "half_range", "std", "n", "values"} with one value per run of the row, null where it has none.
      `std` is the sample standard deviation, null for fewer than two values. `paper` is the paper's mIoU or null;
      `paper_differs` holds the settings that the paper states for the row and that are others here: field ->
      {"paper", "here"}.
    """
    rows: list[dict[str, Any]] = []
    grouped: dict[str, list[Combination]] = {}
    for run in runs:
        grouped.setdefault(str(dict(run.row)), []).append(run)
    for repeats in grouped.values():
        names = [run.name for run in repeats]
        cited, differs = paper_figures(config, axes, repeats[0])
        found = [summaries.get(name, {}).get("results", {}) for name in names]
        results = {
            result: {
                **{
                    figure: spread([results.get(result, {}).get(figure) for results in found])
                    for figure in _figures(found, result)
                },
                "paper": cited.get(result),
            }
            for result in dict.fromkeys(result for results in found for result in results)
        }
        rows.append(
            {"values": dict(repeats[0].row), "runs": names, "results": results, "paper_differs": differs},
        )
    return {
        "format": FORMAT,
        "method": methods.name_of(config),
        "dataset": config.dataset,
        "split": config.eval_split,
        "axes": [
            {
                "fields": {label: list(fields) for label, fields in axis.fields.items()},
                "values": [list(point) for point in axis.values],
                "repeats": axis.repeats,
            }
            for axis in axes
        ],
        "rows": rows,
        "failed": dict(failed),
        "missing": [run.name for run in runs if run.name not in summaries and run.name not in failed],
    }


def main_figure(result: Mapping[str, Any]) -> str:
    """The figure of a result in a row of the table that tells it in a word."""
    return TAGS[0] if TAGS[0] in result else MASKS[0]


def _figures(found: Sequence[Mapping[str, Any]], result: str) -> tuple[str, ...]:
    """The result's figures, those over groups of classes too."""
    figures = dict.fromkeys(figure for results in found for figure in results.get(result, {}))
    return TAGS if TAGS[0] in figures else (*MASKS, *filter(is_group_figure, figures))


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, half range and sample standard deviation of those values that are there."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "half_range": (max(known) - min(known)) / 2 if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "n": len(known),
        "values": list(values),
    }


def paper_figures(
    config: Any, axes: Sequence[Axis], run: Combination
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """What the paper reports for a combination: result -> mIoU, and the settings in which its row of a table differs.

    A table's row is the one whose first setting is the combination's; its other settings are compared. A swept field
    that the table does not state must be as in `config`. The figures that stand outside any table are those of
    `config` itself, unless its tables say otherwise.
    """
    base, here = to_json(config), leaves(to_json(run.config))
    swept = [field for axis in axes if not axis.repeats for fields in axis.fields.values() for field in fields]
    changed = {field for field in swept if here[field] != leaves(base)[field]}
    alone = {name: value for name, value in base["paper"].items() if isinstance(value, float)}
    figures, differs, holds = {}, {}, not changed
    for table in paper_tables(base).values():
        fields = coordinates(base, table)
        if not fields:
            continue
        (first, keyed), *others = fields.items()
        matching = [i for i, value in enumerate(table[first]) if all(here[field] == value for field in keyed)]
        stated = {field for targets in fields.values() for field in targets}
        if not matching or changed - stated:
            holds = False
            continue
        row = {column: entries[matching[0]] for column, entries in table.items()}
        cited = {column: value for column, value in row.items() if column not in fields}
        holds = holds and all(alone.get(column, value) == value for column, value in cited.items())
        figures |= cited
        for column, targets in others:
            for field in targets:
                if here[field] != row[column]:
                    differs[field] = {"paper": row[column], "here": here[field]}
    return ({**alone, **figures} if holds else figures), differs
