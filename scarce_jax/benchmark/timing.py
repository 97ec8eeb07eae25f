"""Times of consecutive steps, the rates they come to, and running out of memory as one message."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from scarce_jax.errors import InputError

WARM_UP = 3


def pace(step: Callable[[], Any], steps: int) -> list[float]:
    """Seconds between the ends of consecutive steps; the first `WARM_UP` steps are left out.

    Each step is dispatched before the one before it has ended, as in training.
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
    """Median and 90th percentile of the steps in ms, and images per second, in all and per device."""
    rate = images * len(intervals) / sum(intervals)
    return {
        "steps": len(intervals),
        "median_step_ms": round(1e3 * float(np.median(intervals)), 3),
        "p90_step_ms": round(1e3 * float(np.percentile(intervals, 90)), 3),
        "images_per_second": round(rate, 3),
        "images_per_second_per_device": round(rate / devices, 3),
    }


def loader_rate(streams: list[Iterator], batches: int) -> float:
    """Batches per second without a step; the first ones, which were read ahead, are left out."""
    for _ in range(4):
        jax.block_until_ready([next(stream) for stream in streams])
    began = time.perf_counter()
    for _ in range(batches):
        jax.block_until_ready([next(stream) for stream in streams])
    return batches / (time.perf_counter() - began)


@contextlib.contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Raises InputError where the device has not the memory for what is done inside."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(f"benchmark: out of device memory with {what}; give a smaller --batch") from error
