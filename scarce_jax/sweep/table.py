"""The table of a sweep: one row per combination, with mean and spread over its repeats and the paper's figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scarce_jax import methods
from scarce_jax.data.figures import AT_SIZE, COVERED, beside, is_group_figure
from scarce_jax.sweep.axes import Axis, Combination
from scarce_jax.sweep.paper import figures as paper_figures
from scarce_jax.sweep.paper import row_of, text

FORMAT = 2
MASKS = ("miou", AT_SIZE, "mean_accuracy", "pixel_accuracy")
TAGS = ("map", "mean_f1")
"""Figures of results that are masks, and of those that are image tags; the main figure first."""


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
      summaries: run -> its summary.json, for finished runs.
      failed: run -> reason.

    Returns:
      {"format", "method", "dataset", "split", "figure", "axes", "rows", "gains", "failed", "missing"}.

      - A row is {"values", "runs", "dataset", "split", "paper", "results", "tables"}. "paper" is {"split", "figures"}:
        what the swept table of the paper has in this row, result -> figure or class -> number; it is null without such
        a table. A result of masks has {"miou", "miou_at_size", "mean_accuracy", "pixel_accuracy"}, "miou_<group>" for
        the method's groups of classes, and `data.figures.COVERED` of masks with void pixels; a result of image tags has
        {"map", "mean_f1"}. Each figure is {"mean", "half_range", "std", "n", "values", "paper"} with one value per run
        of the row, null where a run has none. "std" is the sample standard deviation, null for fewer than two values.
        "paper" is the paper's figure for exactly these settings, or null. Where the paper has figures of classes,
        "per_class" is {class: {"mean", "paper"}}. "tables" has those tables of the first run of which the paper has
        figures, which stand beside.
      - "figure" is the one of which the paper's numbers are.
      - "gains" are the mean differences that the paper states: {"of", "less", "over": the rows' first settings, "mean":
        null unless all rows are measured, "paper"}.
    """
    rows: list[dict[str, Any]] = []
    grouped: dict[str, list[Combination]] = {}
    for run in runs:
        grouped.setdefault(str(dict(run.row)), []).append(run)
    for repeats in grouped.values():
        first = repeats[0]
        names = [run.name for run in repeats]
        cited = paper_figures(first.config, config, first.table)
        measured = [summaries.get(name, {}).get("results", {}) for name in names]
        tables = summaries.get(names[0], {}).get("tables", {})
        rows.append(
            {
                "values": dict(first.row),
                "runs": names,
                "dataset": first.config.dataset,
                "split": first.config.eval_split,
                "paper": planned_figures(first, config) if first.table else None,
                "results": {
                    result: _result([results.get(result, {}) for results in measured], cited.get(result, {}))
                    for result in dict.fromkeys(result for results in measured for result in results)
                },
                "tables": {name: beside(table, cited[name]) for name, table in tables.items() if name in cited},
            }
        )
    return {
        "format": FORMAT,
        "method": methods.name_of(config),
        "dataset": config.dataset,
        "split": config.eval_split,
        "figure": config.paper.get("figure", MASKS[0]),
        "axes": [
            {"fields": list(axis.fields), "values": list(map(list, axis.values)), "repeats": axis.repeats}
            for axis in axes
        ],
        "rows": rows,
        "gains": _gains(config, axes, rows),
        "failed": dict(failed),
        "missing": [run.name for run in runs if run.name not in summaries and run.name not in failed],
    }


def planned_figures(run: Combination, config: Any) -> dict[str, Any]:
    """The paper's figures for a run of a sweep and the split that they are of: {"split", "figures"}."""
    if run.table is None:
        return {"split": run.config.eval_split, "figures": paper_figures(run.config, config)}
    split, stated = row_of(run.config, config, run.table)
    return {"split": split, "figures": stated}


def main_figure(result: Mapping[str, Any]) -> str:
    """The name of the main figure of a result in a row of the table."""
    return TAGS[0] if TAGS[0] in result else MASKS[0]


def _result(measured: Sequence[Mapping[str, Any]], cited: Mapping[str, float]) -> dict[str, Any]:
    """The figures of a result over the runs of a row; `measured` is {} where a run has not measured it."""
    names = dict.fromkeys(name for figures in measured for name in figures)
    covered = (name for name in names if name in COVERED)
    names = TAGS if TAGS[0] in names else (*MASKS, *filter(is_group_figure, names), *covered)
    figures: dict[str, Any] = {
        name: {**spread([figures.get(name) for figures in measured]), "paper": cited.get(name)} for name in names
    }
    by_class = [figures.get("per_class", {}) for figures in measured]
    of_classes = dict.fromkeys(name for classes in by_class for name in classes if name in cited)
    if of_classes:
        figures["per_class"] = {
            name: {"mean": spread([classes.get(name) for classes in by_class])["mean"], "paper": cited[name]}
            for name in of_classes
        }
    return figures


def _gains(config: Any, axes: Sequence[Axis], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean differences that the paper states of the table that is swept."""
    swept = {axis.table: axis.fields[0] for axis in axes if axis.table}
    figure = config.paper.get("figure", MASKS[0])
    gains = []
    for gain in config.paper.get("gains", ()):
        if gain["table"] not in swept:
            continue
        field, over = swept[gain["table"]], set(map(text, gain["rows"]))
        pairs = [
            [row["results"].get(gain[part], {}).get(figure, {}).get("mean") for part in ("of", "less")]
            for row in rows
            if text(row["values"][field]) in over
        ]
        whole = len(pairs) >= len(over) and all(None not in pair for pair in pairs)
        mean = statistics.fmean(of - less for of, less in pairs) if whole else None
        stated = {"of": gain["of"], "less": gain["less"], "over": {field: list(gain["rows"])}}
        gains.append({**stated, "mean": mean, "paper": gain["paper"]})
    return gains


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, half range and sample standard deviation of the values that are not None."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "half_range": (max(known) - min(known)) / 2 if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "n": len(known),
        "values": list(values),
    }
