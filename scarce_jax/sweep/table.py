"""The table of a sweep: one row per combination, with mean and spread over its repeats and the paper's figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scarce_jax import methods
from scarce_jax.data.figures import COVERED, is_group_figure
from scarce_jax.sweep.axes import Axis, Combination
from scarce_jax.sweep.paper import figures as paper_figures

FORMAT = 1
MASKS = ("miou", "mean_accuracy", "pixel_accuracy")
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
      {"format", "method", "dataset", "split", "axes", "rows", "failed", "missing"}. A row is {"values", "runs",
      "results"}. A result of masks has {"miou", "mean_accuracy", "pixel_accuracy", "paper"}, and "miou_<group>" for the
      method's groups of classes and `data.figures.COVERED` of masks with void pixels; a result of image tags has
      {"map", "mean_f1", "paper"}. Each figure is {"mean", "half_range", "std", "n", "values"} with one value per run of
      the row, null where a run has none. "std" is the sample standard deviation, null for fewer than two values.
      "paper" is the paper's mIoU for exactly these settings, or null.
    """
    rows: list[dict[str, Any]] = []
    grouped: dict[str, list[Combination]] = {}
    for run in runs:
        grouped.setdefault(str(dict(run.row)), []).append(run)
    for repeats in grouped.values():
        names = [run.name for run in repeats]
        cited = paper_figures(repeats[0].config, config)
        measured = [summaries.get(name, {}).get("results", {}) for name in names]
        results = {
            result: {
                **{
                    figure: spread([results.get(result, {}).get(figure) for results in measured])
                    for figure in _figures(measured, result)
                },
                "paper": cited.get(result),
            }
            for result in dict.fromkeys(result for results in measured for result in results)
        }
        rows.append({"values": dict(repeats[0].row), "runs": names, "results": results})
    return {
        "format": FORMAT,
        "method": methods.name_of(config),
        "dataset": config.dataset,
        "split": config.eval_split,
        "axes": [
            {"fields": list(axis.fields), "values": list(map(list, axis.values)), "repeats": axis.repeats}
            for axis in axes
        ],
        "rows": rows,
        "failed": dict(failed),
        "missing": [run.name for run in runs if run.name not in summaries and run.name not in failed],
    }


def main_figure(result: Mapping[str, Any]) -> str:
    """The name of the main figure of a result in a row of the table."""
    return TAGS[0] if TAGS[0] in result else MASKS[0]


def _figures(measured: Sequence[Mapping[str, Any]], result: str) -> tuple[str, ...]:
    """The names of a result's figures, with those of groups of classes."""
    figures = dict.fromkeys(figure for results in measured for figure in results.get(result, {}))
    covered = (figure for figure in figures if figure in COVERED)
    return TAGS if TAGS[0] in figures else (*MASKS, *filter(is_group_figure, figures), *covered)


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
