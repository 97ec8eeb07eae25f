"""Compares runs: groups them by their settings without the seed, with mean and spread over the seeds."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from scarce_jax.config_files import has_effect
from scarce_jax.sweep.table import spread


def compare(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Groups runs that differ only in their seed, and lists the settings that differ between the groups.

    Args:
      runs: the values of `files.read_run`.

    Returns:
      "groups": [{"name", "runs": indices in `runs`, "seeds", "results": {result: {figure: [mean, spread, count]}},
      "paper"}], where the spread is half the range; and "differences": {setting: [its value in each group]}.
    """
    members: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        members.setdefault(json.dumps([run["method"], _deciding(run)], sort_keys=True), []).append(number)
    named: dict[str, int] = {}
    groups = []
    for numbers in members.values():
        first = runs[numbers[0]]
        name = first["config_name"]
        named[name] = named.get(name, 0) + 1
        groups.append(
            {
                "name": name if named[name] == 1 else f"{name} ({named[name]})",
                "runs": numbers,
                "seeds": [runs[number]["seed"] for number in numbers],
                "results": _over_seeds([runs[number]["results"] for number in numbers]),
                "paper": first["paper"],
            }
        )
    settings = [{"method": runs[g["runs"][0]]["method"], **_deciding(runs[g["runs"][0]])} for g in groups]
    keys = dict.fromkeys(key for values in settings for key in values)
    values = {key: [group.get(key) for group in settings] for key in keys}
    return {
        "groups": groups,
        "differences": {key: column for key, column in values.items() if any(v != column[0] for v in column)},
    }


def _deciding(run: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that affect a result, without the seed."""
    return {key: value for key, value in run["settings"].items() if key != "seed" and has_effect(key)}


def _over_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Result -> figure, or "per_class.CLASS" -> [mean, half the range, number of runs that have it]."""
    values: dict[str, dict[str, list[float]]] = {}
    for run in results:
        for name, figures in run.items():
            per_class = {f"per_class.{key}": value for key, value in figures.get("per_class", {}).items()}
            for key, value in {**figures, **per_class}.items():
                if isinstance(value, int | float):
                    values.setdefault(name, {}).setdefault(key, []).append(value)
    parts = operator.itemgetter("mean", "half_range", "n")
    return {
        name: {key: list(parts(spread(known))) for key, known in figures.items()} for name, figures in values.items()
    }
