"""How many training steps go to the device at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from jax.sharding import Mesh

from scarce_jax.runtime import Runtime
from scarce_jax.training.inputs import TrainInput

log = logging.getLogger("scarce_jax")


def scan_is_slow(mesh: Mesh) -> bool:
    """XLA's CPU backend runs convolutions inside a loop 14 to 20 times slower than outside."""
    return mesh.devices.flat[0].platform == "cpu"


def at_once(runtime: Runtime, inputs: Mapping[str, TrainInput], mesh: Mesh) -> int:
    """`Runtime.steps_per_dispatch`, or 1 with a line in the log where it cannot be followed."""
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
    """(steps done before, steps in it) of each dispatch.

    It holds `count` steps, or one where something is due before that many are done. Only two numbers of steps occur,
    so that at most two programs are compiled.

    Args:
      every: intervals at whose multiples something happens between two steps; 0 counts as never.
    """
    done = start
    while done < steps:
        due = min([steps, *((done // interval + 1) * interval for interval in every if interval)])
        together = count if done + count <= due else 1
        yield done, together
        done += together
