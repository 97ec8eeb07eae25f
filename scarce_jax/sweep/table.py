"""The table of a sweep: one row per combination, mean and spread over its repeats, the paper's figures beside them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scarce_jax import methods
from scarce_jax.data.figures import is_group_figure
from scarce_jax.sweep.axes import Axis, Combination
from scarce_jax.sweep.paper import figures as paper_figures

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
      "results"}; a result {"miou", "mean_accuracy", "pixel_accuracy", "paper"}, with "miou_<group>"
      where the method has groups of classes, or of image tags {"map", "mean_f1", "paper"}; each figure is {"mean",
      "half_range", "std", "n", "values"} with one value per run of the row, null where it has none.
      `std` is the sample standard deviation, null for fewer than two values. `paper` is the paper's mIoU, null where
      the paper has none for just these settings.
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
            {
                "fields": list(axis.fields),
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


def _figures(measured: Sequence[Mapping[str, Any]], result: str) -> tuple[str, ...]:
    """The result's figures, those over groups of classes too."""
    figures = dict.fromkeys(figure for results in measured for figure in results.get(result, {}))
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
