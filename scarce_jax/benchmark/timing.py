"""Times of consecutive steps, and the rates that follow from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

WARM_UP = 3
"""Steps that are not measured, at the beginning."""


def pace(step: Callable[[], Any], steps: int) -> list[float]:
    """Seconds between the ends of consecutive steps, without the first `WARM_UP` steps.

    Each step is dispatched before the previous one has ended, as in training.
    """
    ends, pending = [], None
    for _ in range(WARM_UP + steps + 1):
        result = step()
        if pending is not None:
            jax.block_until_ready(pending)
            ends.append(time.perf_counter())
        pending = result
    jax.block_until_ready(pending)
    return np.diff(ends)[-steps:].tolist()


def rates(intervals: list[float], images: int, devices: int) -> dict[str, float]:
    """Median and 90th percentile of the step times in ms, and images per second, in total and per device."""
    rate = images * len(intervals) / sum(intervals)
    return {
        "steps": len(intervals),
        "median_step_ms": round(1e3 * float(np.median(intervals)), 3),
        "p90_step_ms": round(1e3 * float(np.percentile(intervals, 90)), 3),
        "images_per_second": round(rate, 3),
        "images_per_second_per_device": round(rate / devices, 3),
    }


def loader_rate(streams: list[Iterator], batches: int) -> float:
    """Batches per second without a step; the first batches are not measured, because they were read ahead."""
    for _ in range(4):
        jax.block_until_ready([next(stream) for stream in streams])
    began = time.perf_counter()
    for _ in range(batches):
        jax.block_until_ready([next(stream) for stream in streams])
    return batches / (time.perf_counter() - began)
