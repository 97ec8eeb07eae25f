"""Projects what the all-reduces of a training step cost on many GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scarce_jax.benchmark.targets import GPUS_PER_HOST, Gpu

PROJECTED = (8, 64, 512)
"""Numbers of GPUs of a projection."""

# Of small messages (protocol LL) by trees, in seconds, from NCCL's own model (src/graph/tuning.cc: baseLat, hwLat).
LATENCY = 4.4e-6
HOP = {"NVLink": 0.52e-6, "PCIe": 1.0e-6}
NETWORK_HOP = 5.0e-6


def all_reduce_seconds(size: int, gpu: Gpu, devices: int) -> float:
    """Least seconds of one all-reduce of `size` bytes on each of `devices` GPUs.

    Inside a host of g GPUs, a ring reduces and scatters before, and gathers after, an all-reduce of each 1/g over the h
    hosts, which all GPUs of a host do at once. Rings move 2 (n - 1) / n of the bytes over each link, the least that an
    all-reduce can (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009):

      2 (g - 1) / g * size / link + 2 (h - 1) / h * (size / g) / network

    To it comes the latency of NCCL's trees, 2 (g - 1) steps in a host and 2 log2(h) between hosts, and a constant.
    """
    inside = min(devices, GPUS_PER_HOST)
    hosts = devices // inside
    latency = LATENCY + 2 * (inside - 1) * HOP[gpu.link] + 2 * math.ceil(math.log2(hosts)) * NETWORK_HOP
    local = 2 * (inside - 1) / inside * size / (1e9 * gpu.link_bandwidth)
    remote = 2 * (hosts - 1) / hosts * size / inside / (1e9 * gpu.network)
    return 0.0 if devices == 1 else latency + local + remote


def project(
    all_reduces: Sequence[int], beside: Sequence[float], seconds: float, gpu: Gpu, devices: int
) -> dict[str, Any]:
    """The cost of a step's all-reduces, for the same batch on each GPU.

    Args:
      all_reduces: bytes of each.
      beside: seconds of the kernels that the compiled program schedules beside each.
      seconds: of the step's kernels.

    Returns:
      "devices"; "all_reduce_ms", all of them; "exposed_ms", what remains if each hides behind the kernels that are
      scheduled beside it, at no cost to them; "efficiency", the share of the step that is no all-reduce if none hides,
      and "efficiency_overlapped", that share if each hides as scheduled.
    """
    each = [all_reduce_seconds(size, gpu, devices) for size in all_reduces]
    exposed = sum(max(0.0, taken - hidden) for taken, hidden in zip(each, beside, strict=True))
    return {
        "devices": devices,
        "all_reduce_ms": 1e3 * sum(each),
        "exposed_ms": 1e3 * exposed,
        "efficiency": seconds / (seconds + sum(each)),
        "efficiency_overlapped": seconds / (seconds + exposed),
    }
