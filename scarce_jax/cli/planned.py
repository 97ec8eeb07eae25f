"""How `benchmark --target` and `train --dry-run --target` print what a program for a GPU costs."""

from __future__ import annotations

from typing import Any

from scarce_jax.benchmark.cost import WIDEST
from scarce_jax.benchmark.targets import gigabytes, memory_sentence
from scarce_jax.cli.common import table
from scarce_jax.errors import plural


def show(record: dict[str, Any]) -> str:
    """The record of `benchmark.planned.plan`, for a terminal."""
    limits = record["limits"]
    assumed = (
        f"{limits['bandwidth']:,.0f} GB/s ({limits['share_of_bandwidth']:.0%} of the data sheet), "
        f"{limits['bfloat16']:,.0f} TFLOP/s in bfloat16, {limits['tf32']:,.0f} in TF32 ({limits['share_of_flops']:.0%})"
    )
    lines = [
        f"{record['config']}, {record['dtype']}, compiled for {record['devices']} x {record['device']}; nothing ran",
        f"bounds assume that every kernel reaches {assumed}, with no time between kernels",
        f"a program fits into the {limits['share_of_memory']:.0%} of a GPU's memory that JAX takes "
        f"({gigabytes(limits['memory'])} here; XLA_PYTHON_CLIENT_MEM_FRACTION)",
        "",
        table([_row(stage) for stage in record["stages"]], HEADER, DECIMALS),
    ]
    for stage in record["stages"]:
        lines += ["", *_facts(stage, record["devices"])]
    return "\n".join(lines)


HEADER = (
    "stage", "batch", "trace s", "compile s", "kernels", "GB", "TFLOP", "memory GB", "bound ms", "images/s, bound",
)  # fmt: skip
DECIMALS = (0, 0, 1, 1, 0, 2, 2, 2, 2, 0)

KERNEL = ("costliest kernels: ms", "runs", "MB", "GFLOP", "what", "phase", "layer")
KERNEL_DECIMALS = (3, 0, 1, 1, 0, 0, 0)


def _row(stage: dict[str, Any]) -> list[Any]:
    compiled = (stage["lower_seconds"], stage["compile_seconds"], stage["kernels"])
    moved = (stage["bytes"] / 1e9, stage["flops"] / 1e12, stage["peak_bytes"] / 1e9)
    return [stage["stage"], stage["batch"], *compiled, *moved, stage["bound_ms"], round(stage["images_per_second"])]


def _facts(stage: dict[str, Any], devices: int) -> list[str]:
    memory = memory_sentence(stage["batch"], stage["crop"], stage["peak_bytes"], stage["fits"], devices)
    lines = [f"{stage['stage']}: {memory}"]
    if stage["largest_batch"] is not None:
        lines.append(f"  {largest_sentence(stage['largest_batch'])}")
    if stage["bytes_bound"] is not None:
        share = stage["bytes_bound"]
        lines.append(f"  bound by bytes for {share:.0%} of the time, by FLOP for {1 - share:.0%}")
    small = stage["small_kernels"]
    lines.append(f"  {small:,} of {stage['kernels']:,} kernels move less than 3 MB, and take about as long as a launch")
    if stage["largest_window"] is not None:
        window = " x ".join(map(str, stage["largest_window"]))
        wide = stage["wide_windows"]
        warning = f"; {plural(wide, 'window')} above {WIDEST} x {WIDEST}, slow or refused by cuDNN" if wide else ""
        lines.append(f"  largest window of a convolution: {window}{warning}")
    if stage["all_reduces"] is not None:
        lines += _all_reduces(stage["all_reduces"], stage["bound_ms"])
    rows = [_kernel(kernel) for kernel in stage["costliest"]]
    return [*lines, "", *(f"  {line}" for line in table(rows, KERNEL, KERNEL_DECIMALS).splitlines())]


def _kernel(kernel: dict[str, Any]) -> list[Any]:
    window = kernel["window"]
    what = kernel["category"] + (f" {'x'.join(map(str, window))}" if window else "")
    cost = (kernel["ms"], kernel["runs"], kernel["bytes"] / 1e6, kernel["flops"] / 1e9)
    return [*cost, what, kernel["phase"], kernel["layer"] or "-"]


def _all_reduces(reduces: dict[str, Any], bound_ms: float) -> list[str]:
    """What the all-reduces cost on the target, and what they would on other numbers of GPUs."""
    share = reduces["all_reduce_ms"] / (bound_ms + reduces["all_reduce_ms"])
    lines = [
        f"  {plural(reduces['count'], 'all-reduce')} of {reduces['bytes'] / 1e6:,.1f} MB: "
        f"{reduces['all_reduce_ms']:.2f} ms over {reduces['link']}, {share:.0%} of the step; "
        f"{reduces['exposed_ms']:.2f} ms if they hide as scheduled"
    ]
    rows = [
        f"{one['devices']} GPUs {one['efficiency']:.0%} to {one['efficiency_overlapped']:.0%}"
        for one in reduces["projected"]
    ]
    return [*lines, f"  projected efficiency at this batch per GPU: {', '.join(rows)}"]


def largest_sentence(largest: dict[str, Any]) -> str:
    """What the search for the largest batch found, and which batches it compiled."""
    tried = ", ".join(f"{batch}: {gigabytes(needed)}" for batch, needed in largest["peaks"].items())
    if largest["batch"] is None:
        return f"no batch fits (compiled {tried})"
    least = "" if largest["exact"] else "at least "
    return f"largest batch that fits: {least}{largest['batch']} (compiled {tried})"
