"""Joins the kernels of a GPU profile with what the compiled program says of them: time beside the limit of each.

The profile must be of a program without CUDA graphs, XLA_FLAGS=--xla_gpu_enable_command_buffer=, since kernels in a
graph do not name their instruction.
"""

from __future__ import annotations

import collections
import pathlib
from typing import Any, NamedTuple

import device  # noqa: F401  puts this checkout on the path

SHOWN = 40
"""Kernels in the second part of a table."""


class Event(NamedTuple):
    """A kernel that ran: its own name, that of its HLO instruction, and its start and duration in ns."""

    kernel: str
    instruction: str
    start: float
    ns: float


def events(trace: str) -> list[Event]:
    """The GPU kernels in a folder that `jax.profiler.start_trace` wrote."""
    from jax.profiler import ProfileData

    files = sorted(pathlib.Path(trace).rglob("*.xplane.pb"))
    found = []
    for plane in ProfileData.from_file(str(files[-1])).planes if files else ():
        for line in plane.lines if plane.name.startswith("/device:GPU") else ():
            # Other lines, such as "XLA Ops", repeat the kernels of the streams.
            for event in line.events if line.name.startswith("Stream") else ():
                stats = dict(event.stats)
                found.append(Event(event.name, str(stats.get("hlo_op", "")), event.start_ns, event.duration_ns))
    return found


def kernel_table(trace: str, text: str, steps: int, kind: str) -> tuple[str, dict[str, Any]]:
    """The table of a profile as text, and its sums.

    Args:
      trace: the folder of the profile.
      text: the optimised HLO of the program that was profiled.
      steps: its runs in the profile.
      kind: of the device; one that `benchmark.targets` does not have is measured against an H100.
    """
    return table(events(trace), limits(text, kind), steps)


def limits(text: str, kind: str) -> dict[str, tuple[Any, float]]:
    """Each kernel of a program by the name of its instruction, and the least ms that all its runs take."""
    from scarce_jax.benchmark import cost, hlo, targets

    gpu = targets.BY_KIND.get(kind, targets.BY_KIND["NVIDIA H100 80GB HBM3"])
    return {kernel.name: (kernel, 1e3 * kernel.runs * cost.seconds(kernel, gpu)) for kernel in hlo.kernels(text)}


def table(ran: list[Event], kernels: dict[str, tuple[Any, float]], steps: int) -> tuple[str, dict[str, Any]]:
    """See `kernel_table`; `kernels` are those of `limits`."""
    if not ran:
        return "the profile has no GPU kernels\n", {"kernels": 0}
    span = (max(event.start + event.ns for event in ran) - min(event.start for event in ran)) / 1e6 / steps
    busy = sum(event.ns for event in ran) / 1e6 / steps
    of_instruction: dict[str, list[Event]] = collections.defaultdict(list)
    for event in ran:
        of_instruction[event.instruction or event.kernel].append(event)
    rows, categories = [], collections.defaultdict(lambda: [0.0, 0.0, 0])
    for name, group in of_instruction.items():
        known, limit = kernels.get(name, (None, 0.0))
        ms, category, result = sum(event.ns for event in group) / 1e6 / steps, "not in the program", ""
        if known:
            category, result = f"{known.category}, {known.phase}", f"{known.result[:60]}  {known.layer}"
        rows.append((ms, limit, len(group) / steps, category, name, result, group[0].kernel))
        total = categories[category]
        categories[category] = [total[0] + ms, total[1] + limit, total[2] + len(group)]
    losing = sorted(rows, key=lambda row: row[1] - row[0])[:SHOWN]
    ordered = sorted(categories.items(), key=lambda item: -item[1][0])
    lines = [
        f"{len(ran) / steps:.0f} kernels a step, {span:.3f} ms, of which the GPU is busy for {busy:.3f} ms",
        f"{'category':40s} {'ms':>9s} {'kernels':>8s} {'limit ms':>9s} {'share':>6s}",
        *(
            f"{category:40s} {ms:9.3f} {count / steps:8.0f} {limit:9.3f} {limit / ms if ms else 0:6.2f}"
            for category, (ms, limit, count) in ordered
        ),
        "the kernels that lose most against their limits",
        *(
            f"{ms:8.3f} ms (limit {limit:7.3f}) x{count:<5.0f} {category:32s} {name:40s} {result}  {kernel[:60]}"
            for ms, limit, count, category, name, result, kernel in losing
        ),
    ]
    figures = {
        "kernels": round(len(ran) / steps),
        "span_ms": round(span, 3),
        "busy_ms": round(busy, 3),
        "limit_ms": round(sum(row[1] for row in rows), 3),
        "ms_by_category": {category: round(values[0], 3) for category, values in ordered},
    }
    return "\n".join(lines) + "\n", figures
