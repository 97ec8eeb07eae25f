"""Prints what the committed rows say, device by device: the fastest form of each operator, and each step's rivals.

python benchmarks/gpu/choices.py [FILE ...]      the default is all of benchmarks/results/gpu
"""

from __future__ import annotations

import argparse
import collections
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from run_queue import RESULTS, rows

Rows = dict[str, dict[str, Any]]
"""Task -> the figures of its lines; of equal keys, those of the last one."""


def operators(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A line for each operator of several forms: the fastest one, and how much longer the others take."""
    forms: dict[tuple[str, str], dict[str, float]] = collections.defaultdict(dict)
    for row in found:
        if "us" in row and "form" in row:
            forms[row["operator"], row["part"]][row["form"]] = row["us"]
    for (operator, part), times in forms.items():
        if len(times) > 1:
            best = min(times, key=times.get)
            others = ", ".join(f"{form} x {us / times[best]:.2f}" for form, us in times.items() if form != best)
            yield f"| {operator}, {part} | {best} | {times[best]:.0f} us | {others} |"


def steps(last: Rows) -> Iterator[str]:
    """A line for each net: our step, those of PyTorch in times of it, the share of its limit, memory and its start."""
    for task, row in last.items():
        if not task.startswith("step.") or "median_step_ms" not in row:
            continue
        net, ms = task.removeprefix("step."), row["median_step_ms"]
        rivals = {mode: last.get(f"torch.{net}.{mode}", {}) for mode in ("eager", "compile", "cudagraphs")}
        unequal = any(r and r["parameters"] != row["parameters"] for r in rivals.values())
        times = [f"{r['median_step_ms'] / ms:.2f}" if "median_step_ms" in r else "" for r in rivals.values()]
        limit = row.get("bound_ms")
        memory = [row.get("peak_bytes"), row.get("measured_peak_bytes")]
        cells = [
            net + (" (other parameters in PyTorch)" if unequal else ""),
            f"{ms:.2f}",
            f"{row['images_per_second']:.0f}",
            *times,
            "" if limit is None else f"{limit / ms:.2f}",
            *("" if count is None else f"{count / 1e9:.2f}" for count in memory),
            f"{row['trace_s']:.0f} + {row['compile_s']:.0f}{' (cached)' if row['from_cache'] else ''}",
        ]
        yield f"| {' | '.join(cells)} |"


def changes(last: Rows) -> Iterator[str]:
    """A line for each flag and setting: its step time in times of the default's, or why it has none."""
    defaults = {"flag": "step.{}", "deterministic": "step.{}", "dispatch": "dispatch.1", "start": "step.{}"}
    for task, row in last.items():
        kind, *rest = task.split(".")
        if kind not in defaults or task == "dispatch.1":
            continue
        base = last.get(defaults[kind].format(rest[0]), {})
        if "median_step_ms" not in row:
            *_, reason = ["", *str(row.get("errors", "")).strip().splitlines()]
            yield f"| {task} | | | {reason} |"
        elif "median_step_ms" in base:
            compile_s = row.get("compile_s", row.get("compile_seconds"))
            share = row["median_step_ms"] / base["median_step_ms"]
            yield f"| {task} | {row['median_step_ms']:.3f} | {share:.3f} | compiled in {compile_s} s |"


def report(found: list[dict[str, Any]]) -> Iterator[str]:
    """The tables of one device."""
    last: Rows = {}
    for row in found:
        # The line that ends a task has no figures, unless the task failed.
        if "status" not in row or row["status"] != 0:
            last.setdefault(row["task"], {}).update(row)
    tables = {
        "| train step | ms | images/s | PyTorch eager, x | torch.compile, x | with graphs, x | limit over time | "
        "GB predicted | GB measured | s to trace + compile |": steps(last),
        "| operator | fastest form | time | others |": operators(found),
        "| change | ms | x | |": changes(last),
    }
    for header, lines in tables.items():
        if body := list(lines):
            yield "\n".join([header, "|" + "---|" * (header.count("|") - 1), *body, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path, default=sorted(RESULTS.glob("*.jsonl")))
    options = parser.parse_args()
    by_device: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in rows(options.files):
        if "task" in row:
            by_device[row["device"] + (" (tiny)" if row.get("tiny") else "")].append(row)
    for kind, found in by_device.items():
        print(f"## {kind}\n")
        print("\n".join(report(found)))


if __name__ == "__main__":
    main()
