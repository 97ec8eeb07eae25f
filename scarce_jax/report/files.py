"""Reads the files of a run folder as JSON values, without computing anything on a device."""

from __future__ import annotations

import datetime
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scarce_jax.config_files import leaves
from scarce_jax.data.budget import Manifest
from scarce_jax.data.figures import numbers
from scarce_jax.training.folder import CONFIG, MANIFEST, SUMMARY, read_description, read_done, read_facts, read_summary
from scarce_jax.training.log import complete_lines

POINTS = 600
"""Most points of a curve; longer curves are thinned, so that long runs do not make the page large."""

COPIED = ("method", "devices", "git_revision", "command", "classes", "palette")
"""Entries of config.json that the page takes over."""

TIMING = ("images_per_second", "data_wait")


def read_run(folder: pathlib.Path) -> dict[str, Any]:
    """Everything that the page shows about a run, finished or not, except predictions.

    Raises:
      InputError: the folder is no run folder, or a file in it is damaged.
    """
    facts = read_facts(folder)
    summary = read_summary(folder)
    finished = summary is not None
    manifest = folder / MANIFEST
    roles = Manifest.read(manifest).roles if manifest.exists() else {}
    roles_read = _roles_read(folder)
    lines = [entry for _, entry in complete_lines(folder / "metrics.jsonl")]
    written = (folder / (SUMMARY if finished else CONFIG)).stat().st_mtime
    summary = summary or {"results": {}, "tables": {}}
    config = facts["config"]
    return {
        **{key: facts[key] for key in COPIED},
        "path": str(folder),
        "dataset": facts["dataset"]["name"],
        "config_name": _config_name(facts["command"], folder),
        "seed": config.get("seed"),
        "budget": {role: len(ids) for role, ids in roles.items() if role in roles_read},
        "versions": {**facts["versions"], "dataset": facts["dataset"]["versions"].get(facts["dataset"]["name"])},
        "written": datetime.datetime.fromtimestamp(written, datetime.UTC).isoformat(" ", "minutes"),
        "settings": leaves(config),
        "finished": finished,
        "seconds": summary.get("seconds"),
        "stages": _stages(folder, facts, summary, lines),
        "curves": _curves(lines),
        "results": summary["results"],
        "tables": summary["tables"],
        "paper": numbers(config.get("paper", {})),
    }


def _config_name(command: Sequence[str], folder: pathlib.Path) -> str:
    """The stem of the config file in the command; the folder's name for a run that a script started."""
    after = command[command.index("train") + 1 :] if "train" in command else ()
    return next((pathlib.PurePath(word).stem for word in after if word.endswith(".py")), folder.name)


def _roles_read(folder: pathlib.Path) -> set[str]:
    """The roles of the label budget that stages read. Most methods read no coarse masks, though datasets have them."""
    names = [path.parent.name for path in folder.glob("*/stage.json")]
    return {role for name in names for role in read_description(folder, name)["roles"]}


def _stages(
    folder: pathlib.Path, facts: Mapping[str, Any], summary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every stage with its timing, and the last logged step of an unfinished one."""
    begun = sorted(folder.glob("*/stage.json"), key=lambda path: path.stat().st_mtime)
    known = [stage["name"] for stage in summary.get("stages", ())]
    names = list(dict.fromkeys([*known, *(path.parent.name for path in begun), *facts["steps"]]))
    stages = []
    for name in names:
        done = read_done(folder, name) or {}
        logged = [line for line in lines if line["stage"] == name and line["kind"] == "train"]
        # The first interval includes the compilation, so its rate is not representative.
        rates, waits = ([line[key] for line in logged[1:] if line.get(key) is not None] for key in TIMING)
        stage = {
            "name": name,
            "done": bool(done),
            "kind": "train" if name in facts["steps"] else "infer",
            "steps": facts["steps"].get(name) or done.get("steps"),
            "at": logged[-1]["step"] if logged else 0,
            "images_per_second": statistics.median(rates) if rates else None,
            "data_wait": statistics.fmean(waits) if waits else None,
        }
        measured = ("seconds", "compile_seconds", "examples", "kept_step", "read")
        stages.append({**stage, **{key: done.get(key) for key in measured}})
    return stages


def _curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[list[float | None]]]]:
    """Stage -> quantity -> [steps, values]; quantities of measurements start with "eval ", as in "eval val miou"."""
    points: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in lines:
        prefix = "" if line["kind"] == "train" else f"{line['kind']} {line.get('eval', '')} "
        for key, value in line.items():
            if key != "step" and isinstance(value, int | float):
                curve = points.setdefault(line["stage"], {}).setdefault(f"{prefix}{key}", [])
                curve.append((line["step"], value))
    return {
        stage: {name: _thinned(curve) for name, curve in quantities.items()} for stage, quantities in points.items()
    }


def _thinned(curve: Sequence[tuple[int, float]]) -> list[list[float]]:
    """At most `POINTS` of the points, evenly spaced and with the last one; values to 6 digits."""
    stride = -(-len(curve) // POINTS)
    points = curve[(len(curve) - 1) % stride :: stride]
    return [[step for step, _ in points], [float(f"{value:.6g}") for _, value in points]]
