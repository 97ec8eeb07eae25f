"""What a compiled program costs at least on a GPU: bytes, products and all-reduces against the GPU's limits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from scarce_jax.benchmark.hlo import Kernel
from scarce_jax.benchmark.scaling import PROJECTED, project
from scarce_jax.benchmark.targets import GPUS_PER_HOST, Gpu

SMALL = 3_000_000
"""Bytes below which a kernel takes about as long as its launch."""

WIDEST = 7
"""Side of the largest window that a net of this library has; a larger one is the gradient of a kernel."""

COSTLIEST = 10


def seconds(kernel: Kernel, gpu: Gpu) -> float:
    """Least seconds of one run of a kernel: of its bytes or its products, whichever takes longer."""
    return max(kernel.bytes / gpu.bytes_per_second, kernel.flops / gpu.flops(kernel.unit))


def cost(program: Sequence[Kernel], images: int, gpu: Gpu, devices: int) -> dict[str, Any]:
    """What a program's kernels cost at least, on one of `devices` GPUs.

    A step takes longer: no kernel is at its limit, and each has to be launched. DSNet's step at 512 x 1024 took 15.2 ms
    on an H200 (benchmarks/results/gpu), where the bound is 6.4 ms.

    Args:
      images: examples of one run, over all GPUs.

    Returns:
      "kernels", "small_kernels" (below `SMALL` bytes), "bytes" and "flops" of all but collectives; "bound_ms", the sum
      over them of the time of their bytes or of their products, whichever is longer; "bytes_bound", the share of it in
      kernels whose bytes take longer; "images_per_second" at the bound and with all-reduces as scheduled;
      "categories"; "costliest", the `COSTLIEST` kernels; "largest_window" of a convolution; "wide_windows", the number
      of windows above `WIDEST`; "all_reduces".
    """
    local = [kernel for kernel in program if not kernel.collective]
    taken = [kernel.runs * seconds(kernel, gpu) for kernel in local]
    bound = sum(taken)
    by_bytes = sum(
        part
        for kernel, part in zip(local, taken, strict=True)
        if part <= kernel.runs * kernel.bytes / gpu.bytes_per_second
    )
    windows = [kernel.window for kernel in local if kernel.window]
    reduces = _all_reduces(program, bound, gpu, devices)
    exposed = reduces["exposed_ms"] / 1e3 if reduces else 0.0
    order = sorted(range(len(local)), key=lambda k: -taken[k])[:COSTLIEST]
    return {
        "kernels": sum(kernel.runs for kernel in local),
        "small_kernels": sum(kernel.runs for kernel in local if kernel.bytes < SMALL),
        "bytes": sum(kernel.runs * kernel.bytes for kernel in local),
        "flops": sum(kernel.runs * kernel.flops for kernel in local),
        "bound_ms": 1e3 * bound,
        "bytes_bound": by_bytes / bound if bound else None,
        "images_per_second": images / (bound + exposed) if bound else None,
        "categories": _categories(local, taken),
        "costliest": [_line(local[k], taken[k]) for k in order],
        "largest_window": list(max(windows, key=max)) if windows else None,
        "wide_windows": sum(max(window) > WIDEST for window in windows),
        "all_reduces": reduces,
    }


def _line(kernel: Kernel, taken: float) -> dict[str, Any]:
    return {
        "kernel": kernel.name,
        "ms": 1e3 * taken,
        "runs": kernel.runs,
        "bytes": kernel.bytes,
        "flops": kernel.flops,
        "category": kernel.category,
        "phase": kernel.phase,
        "layer": kernel.layer,
        "window": None if kernel.window is None else list(kernel.window),
    }


def _categories(local: Sequence[Kernel], taken: Sequence[float]) -> list[dict[str, Any]]:
    """Kernels, bytes, FLOP and ms by category and phase, the costliest first."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for kernel, part in zip(local, taken, strict=True):
        one = (kernel.runs, kernel.runs * kernel.bytes, kernel.runs * kernel.flops, 1e3 * part)
        key = (kernel.category, kernel.phase)
        sums[key] = [total + part for total, part in zip(sums[key], one, strict=True)]
    keys = ("kernels", "bytes", "flops", "ms")
    ordered = sorted(sums.items(), key=lambda item: -item[1][-1])
    return [
        {"category": category, "phase": phase, **dict(zip(keys, values, strict=True))}
        for (category, phase), values in ordered
    ]


def _all_reduces(program: Sequence[Kernel], bound: float, gpu: Gpu, devices: int) -> dict[str, Any] | None:
    """Number and bytes of a program's collectives, and their projected cost; None on one GPU."""
    if devices == 1:
        return None
    reduces = []
    for k, kernel in enumerate(program):
        if kernel.collective:
            following = program[k + 1 : k + 1 + kernel.beside]
            reduces.append((kernel, sum(one.runs * seconds(one, gpu) for one in following if not one.collective)))
    sizes = [kernel.read for kernel, _ in reduces for _ in range(kernel.runs)]
    beside = [hidden for kernel, hidden in reduces for _ in range(kernel.runs)]
    here, *projected = (project(sizes, beside, bound, gpu, n) for n in (devices, *PROJECTED))
    del here["devices"]
    link = gpu.link + (" and network" if devices > GPUS_PER_HOST else "")
    return {"count": len(sizes), "bytes": sum(sizes), "link": link, **here, "projected": projected}
