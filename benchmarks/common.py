"""What the benchmark scripts share: the header of a line, appending it, where results stand."""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"

# The library of this checkout, whose revision the lines state, whatever else is installed.
sys.path.insert(0, str(ROOT))


def header() -> dict[str, Any]:
    """Git revision, versions and devices."""
    import jax

    from scarce_jax.provenance import git_revision, versions

    devices = jax.devices()
    return {
        "git_revision": git_revision(),
        "versions": versions(),
        "device": devices[0].device_kind,
        "devices": len(devices),
    }


def append(path: pathlib.Path, line: dict[str, Any]) -> None:
    """Prints a line of results, and appends it to a JSONL file."""
    text = json.dumps(line, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text + "\n")
    print(text, flush=True)


def seconds_each(work: Callable[[int], None], repeats: int = 5, shortest: float = 0.2) -> float:
    """Median seconds of one call; `work(n)` makes n calls and waits for them. Calls are timed in groups of 0.2 s."""
    work(2)
    calls = 1
    while True:
        began = time.perf_counter()
        work(calls)
        taken = time.perf_counter() - began
        if taken >= shortest:
            break
        calls = max(calls + 1, min(10 * calls, round(1.2 * calls * shortest / max(taken, 1e-9))))
    times = [taken / calls]
    for _ in range(repeats - 1):
        began = time.perf_counter()
        work(calls)
        times.append((time.perf_counter() - began) / calls)
    return statistics.median(times)
