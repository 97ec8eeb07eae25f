"""What a command left, in bits: two folders are compared by these values."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

import numpy as np

TIMES = (
    "images_per_second", "data_wait", "seconds", "compile_seconds", "inferred", "command", "git_revision", "checksum",
    "files",
)  # fmt: skip
"""Entries that tell how a result was reached, and what depends on them: Orbax writes the time into files of a net."""

LEFTOVERS = (".*", "*.aside", "*tmp*", "checkpoints", "best", "*.lock")


def run_content(run: pathlib.Path) -> dict[str, Any]:
    """The bits of a finished run: nets, records, means, lines of metrics, DONE, budget and results."""
    from scarce_jax.data.records import Records
    from tests import tiny

    content: dict[str, Any] = {name: digest(array) for name, array in tiny.stored(run).items()}
    for folder in sorted(run.glob("*/records")):
        records = Records(folder)
        for name in records.ids:
            for field, array in records.read(name).items():
                content[f"{folder.parent.name}/records/{name}/{field}"] = digest(array)
    for path in sorted(run.glob("*/mean.npz")):
        with np.load(path) as arrays:
            content |= {f"{path.parent.name}/mean/{name}": digest(arrays[name]) for name in arrays.files}
    for path in sorted(run.glob("*/DONE")):
        content[f"{path.parent.name}/DONE"] = timeless(json.loads(path.read_text()))
    lines = [timeless(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    content["metrics.jsonl"] = sorted(json.dumps(line, sort_keys=True) for line in lines)
    content["manifest.json"] = json.loads((run / "manifest.json").read_text())
    content["config.json"] = json.loads((run / "config.json").read_text())["config"]
    summary = json.loads((run / "summary.json").read_text())
    content |= {f"summary.json/{key}": timeless(summary[key]) for key in ("results", "tables", "stages")}
    return content


def sweep_content(sweep: pathlib.Path) -> dict[str, Any]:
    """The bits of every run of a sweep, and its table."""
    content = {"table.json": timeless(json.loads((sweep / "table.json").read_text()))}
    for path in sorted(sweep.glob("*/summary.json")):
        content |= {f"{path.parent.name}/{key}": value for key, value in run_content(path.parent).items()}
    return content


def files_content(folder: pathlib.Path) -> dict[str, Any]:
    """The bits of every file that is no leftover."""
    gone = set(leftovers(folder))
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not any(part == name or name.startswith(f"{part}/") for part in gone)
    }


def leftovers(folder: pathlib.Path) -> list[str]:
    """Files and folders that an unbroken command does not leave."""
    return sorted({p.relative_to(folder).as_posix() for pattern in LEFTOVERS for p in folder.rglob(pattern)})


def digest(array: np.ndarray) -> str:
    """The hash of an array's dtype, shape and bytes."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()


def timeless(value: Any) -> Any:
    """A value of JSON without `TIMES`."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in TIMES}
    return [timeless(part) for part in value] if isinstance(value, list) else value
