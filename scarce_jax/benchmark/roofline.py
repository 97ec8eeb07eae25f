"""The limits of a device, and the share of them that a compiled program reaches."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from scarce_jax.synthetic import peak_bytes


class Peak(NamedTuple):
    """The limits of a device: dense matrix TFLOP/s by input type, and memory GB/s.

    The limit of float32 is that of TF32, because XLA may compute float32 convolutions in TF32 on these GPUs.
    """

    bfloat16: float
    float32: float
    memory: float


# From pages that quote NVIDIA's data sheets "A100 Tensor Core GPU", "H100 Tensor Core GPU", "H200 Tensor Core GPU",
# "L4 Tensor Core GPU", "L40S GPU" and, for the RTX 4090, "Ada GPU Architecture" (float32 accumulation); not checked
# against the sheets themselves. Figures that are stated with sparsity are halved.
PEAKS = {
    "NVIDIA A100-SXM4-40GB": Peak(312, 156, 1555),
    "NVIDIA A100-SXM4-80GB": Peak(312, 156, 2039),
    "NVIDIA A100 80GB PCIe": Peak(312, 156, 1935),
    "NVIDIA H100 80GB HBM3": Peak(989.4, 494.7, 3350),
    "NVIDIA H100 PCIe": Peak(756, 378, 2000),
    "NVIDIA H200": Peak(989.4, 494.7, 4800),
    "NVIDIA L4": Peak(121, 60, 300),
    "NVIDIA L40S": Peak(362, 183, 864),
    "NVIDIA GeForce RTX 4090": Peak(165.2, 82.6, 1008),
}
"""Device kind in JAX -> its limits. A part of a GPU (MIG) has a kind of its own, which has no entry."""

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
    """FLOP/s and bytes/s of one device, and their shares of its limits; None where unknown."""
    peak = PEAKS.get(device.device_kind)
    flops, moved = (None if done[key] is None else done[key] / seconds for key in ("flops", "bytes"))
    return {
        "flops_per_second": flops,
        "share_of_peak": None if peak is None or flops is None else flops / (1e12 * getattr(peak, dtype)),
        "bytes_per_second": moved,
        "share_of_bandwidth": None if peak is None or moved is None else moved / (1e9 * peak.memory),
    }


def memory_in_use(device: jax.Device) -> dict[str, int] | None:
    """The peak of this process's memory on the device, and its limit, in bytes; None where the device reports none."""
    stats = device.memory_stats()
    if not stats or "peak_bytes_in_use" not in stats:
        return None
    return {"peak_bytes_in_use": stats["peak_bytes_in_use"], "bytes_limit": stats.get("bytes_limit")}
