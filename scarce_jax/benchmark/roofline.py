"""The limits of a device, and the share of them that a compiled program reaches."""

from __future__ import annotations

from typing import Any

import jax

from scarce_jax.benchmark.targets import BY_KIND
from scarce_jax.synthetic import peak_bytes

COUNTED = 0.5
"""A compiled program that counts a smaller share of the FLOPs before compilation has left out library calls."""


def work(lowered: jax.stages.Lowered, compiled: jax.stages.Compiled, devices: int) -> dict[str, Any]:
    """FLOPs, bytes and memory of one call of a program, on one device.

    Returns:
      "flops"; "flops_from": "compiled", or "lowered" where the compiled program hides FLOPs in library calls (cuDNN),
      which XLA's cost analysis counts as 0; "bytes": what its kernels read and write, including caches; "peak_bytes":
      arguments, results and temporary memory, without the images of a resident source.
    """
    before, after = lowered.cost_analysis() or {}, compiled.cost_analysis() or {}
    expected, counted = before.get("flops", 0.0) / devices, after.get("flops", 0.0)
    trusted = counted >= COUNTED * expected
    return {
        "flops": counted if trusted else expected,
        "flops_from": "compiled" if trusted else "lowered",
        "bytes": after.get("bytes accessed"),
        "peak_bytes": peak_bytes(compiled),
    }


def reached(done: dict[str, Any], seconds: float, device: jax.Device, dtype: str) -> dict[str, Any]:
    """FLOP/s and bytes/s of one device, and their shares of its limits by the data sheet; None where unknown.

    The limit of float32 is that of TF32, because XLA may compute float32 convolutions in TF32 on these GPUs.
    """
    gpu = BY_KIND.get(device.device_kind)
    flops, moved = (None if done[key] is None else done[key] / seconds for key in ("flops", "bytes"))
    unit = "bfloat16" if dtype == "bfloat16" else "tf32"
    return {
        "flops_per_second": flops,
        "share_of_peak": None if gpu is None or flops is None else flops / (1e12 * getattr(gpu, unit)),
        "bytes_per_second": moved,
        "share_of_bandwidth": None if gpu is None or moved is None else moved / (1e9 * gpu.bandwidth),
    }


def memory_in_use(device: jax.Device) -> dict[str, int] | None:
    """The peak of this process's memory on the device, and its limit, in bytes; None where the device reports none."""
    stats = device.memory_stats()
    if not stats or "peak_bytes_in_use" not in stats:
        return None
    return {"peak_bytes_in_use": stats["peak_bytes_in_use"], "bytes_limit": stats.get("bytes_limit")}
