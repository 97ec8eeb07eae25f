"""Shared by the benchmark scripts: the parser, timing, and appending a line of results to a file."""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"

# The library of this checkout, whose revision the results state, and not an installed one.
sys.path.insert(0, str(ROOT))


def arguments(description: str, results: str) -> argparse.ArgumentParser:
    """A parser with the flag `--out`; its default is the file `results` of benchmarks/results."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / results, help="JSONL file to append to")
    return parser


def append(path: pathlib.Path, line: dict[str, Any]) -> None:
    """Prints a line of results, and appends it to a JSONL file."""
    text = json.dumps(line, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text + "\n")
    print(text, flush=True)


def rate(call: Callable[[int], Any], seconds: float, ahead: int = 1) -> float:
    """Calls per second of `call(k)` for k = 0, 1, ..., without the first `ahead` calls."""
    for k in range(ahead):
        call(k)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        call(ahead + done)
        done += 1
    return done / (time.perf_counter() - began)


def seconds_each(work: Callable[[int], None], repeats: int = 5, shortest: float = 0.2) -> float:
    """Median seconds of one call, timed in groups that take at least `shortest` seconds.

    Args:
      work: `work(n)` makes n calls and waits for them.
      repeats: number of groups.
    """

    def timed(calls: int) -> float:
        began = time.perf_counter()
        work(calls)
        return time.perf_counter() - began

    work(2)
    calls = 1
    while (taken := timed(calls)) < shortest:
        calls = max(calls + 1, min(10 * calls, round(1.2 * calls * shortest / max(taken, 1e-9))))
    return statistics.median([taken, *(timed(calls) for _ in range(repeats - 1))]) / calls


def dispatches(program: Callable[..., Any], *values: Any) -> Callable[[int], None]:
    """The `work` of `seconds_each` for a JAX program: dispatches all calls, then waits for the last one."""
    import jax

    def work(calls: int) -> None:
        result = None
        for _ in range(calls):
            result = program(*values)
        jax.block_until_ready(result)

    return work
