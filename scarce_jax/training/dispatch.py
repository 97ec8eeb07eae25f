"""Dispatching several training steps in one call."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from jax.sharding import Mesh

from scarce_jax.runtime import Runtime
from scarce_jax.training.inputs import TrainInput

log = logging.getLogger("scarce_jax")


def scan_is_slow(mesh: Mesh) -> bool:
    """Whether `lax.scan` is slow: XLA's CPU backend runs convolutions in a loop 14 to 20 times slower."""
    return mesh.devices.flat[0].platform == "cpu"


def at_once(runtime: Runtime, inputs: Mapping[str, TrainInput], mesh: Mesh) -> int:
    """Returns `Runtime.steps_per_dispatch`; or 1, with a line in the log, if it cannot be used."""
    wanted = runtime.steps_per_dispatch
    streaming = [name for name, source in inputs.items() if not source.resident]
    if wanted > 1 and scan_is_slow(mesh):
        log.info("steps_per_dispatch: 1 instead of %d, loops of convolutions are slow on a CPU", wanted)
    elif wanted > 1 and streaming:
        log.info("steps_per_dispatch: 1 instead of %d, %s is not resident", wanted, ", ".join(streaming))
    else:
        return wanted
    return 1


def dispatches(start: int, steps: int, count: int, every: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields (first step, number of steps) of each dispatch.

    The number is `count`, or 1 if something is due before `count` steps are done. With only two numbers, at most two
    programs are compiled.

    Args:
      start: the first step.
      steps: the end of the steps.
      count: steps per dispatch.
      every: intervals at whose multiples something is due between two steps; 0 is never.
    """
    done = start
    while done < steps:
        due = min([steps, *((done // interval + 1) * interval for interval in every if interval)])
        together = count if done + count <= due else 1
        yield done, together
        done += together
