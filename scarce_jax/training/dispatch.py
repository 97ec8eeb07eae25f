"""Dispatching several training steps in one call."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence

import jax
from jax.sharding import Mesh

from scarce_jax.recipe import NetState
from scarce_jax.runtime import Runtime
from scarce_jax.training.batches import TrainInput

log = logging.getLogger("scarce_jax")

LARGE = 10_000_000
MOST_STEPS = 8


def scan_is_slow(mesh: Mesh) -> bool:
    """Whether `lax.scan` is slow: XLA's CPU backend runs convolutions in a loop 14 to 20 times slower."""
    return mesh.devices.flat[0].platform == "cpu"


def at_once(
    runtime: Runtime, inputs: Mapping[str, TrainInput], mesh: Mesh, nets: Mapping[str, NetState], stops: Sequence[int]
) -> int:
    """Returns the number of steps in a dispatch.

    It is `Runtime.steps_per_dispatch`; or 1, with a line in the log, if that cannot be used. If it is None, it is
    chosen: 1 on a CPU, if a source is not resident, or for nets of `LARGE` or more parameters, whose steps take far
    longer than their dispatch; else the largest number up to `MOST_STEPS` that divides all `stops`, so that no second
    program is compiled. The choice depends on no measured time, and results do not depend on the choice.

    Args:
      runtime: the settings of the run.
      inputs: the opened sources.
      mesh: the mesh of the run.
      nets: the nets of the stage.
      stops: the first and the last step, and intervals at whose multiples something is due between two steps; 0 is
        never.
    """
    wanted = runtime.steps_per_dispatch
    streaming = [name for name, source in inputs.items() if not source.resident]
    if wanted is None:
        parameters = sum(x.size for net in nets.values() for x in jax.tree.leaves(net.params))
        if scan_is_slow(mesh) or streaming or parameters >= LARGE:
            return 1
        common = math.gcd(*stops)
        return max(count for count in range(1, MOST_STEPS + 1) if common % count == 0)
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
