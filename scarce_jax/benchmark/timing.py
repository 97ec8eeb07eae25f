"""How steps are timed, and what every timed program is given."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from scarce_jax import mesh as mesh_lib
from scarce_jax.benchmark.synthetic import abstract_consts
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.recipe import Artifact, Eval, Recipe, Train
from scarce_jax.training.session import Session

WARM_UP = 3


@dataclasses.dataclass
class Measured:
    """What both modes are given."""

    session: Session
    info: DatasetInfo
    config: Any
    prepared: bool
    stage: str | None
    steps: int
    batch: int | None
    native: tuple[int, int] | None

    @property
    def recipe(self) -> Recipe:
        return self.session.recipe

    def stage_called(self, name: str) -> Train:
        known = [stage.name for stage in self.recipe.stages if isinstance(stage, Train)]
        if name not in known:
            raise InputError(f"stage {name!r}: no training stage of this recipe; it has {', '.join(known)}")
        return self.recipe.stage(name)

    def consts(self, item: Train | Eval) -> dict[str, Any]:
        """The constants; ones for what an earlier stage would leave."""
        made = {
            name: np.ones(spec.shape, spec.dtype) if isinstance(item.consts[name], Artifact) else item.consts[name]
            for name, spec in abstract_consts(item, self.recipe, self.info).items()
        }
        return mesh_lib.replicate(self.session.mesh, made)


def pace(step: Callable[[], Any], steps: int) -> list[float]:
    """Seconds between the ends of consecutive steps, each dispatched before the one before it has ended.

    That is how training dispatches; `WARM_UP` steps before the measured ones are left out.
    """
    ends, pending = [], None
    for _ in range(WARM_UP + steps + 1):
        made = step()
        if pending is not None:
            jax.block_until_ready(pending)
            ends.append(time.perf_counter())
        pending = made
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
