"""A mesh with one axis over all devices of all processes, and helpers for runs of several processes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scarce_jax.errors import InputError, UsageError

log = logging.getLogger("scarce_jax")

AXIS = "data"


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the processes of a multi-host run; does nothing in a run of one process.

    Args:
      coordinator: "host:port" of process 0. If None, `jax.distributed.initialize` finds it in the environment, provided
        that Slurm or Open MPI started more than one process or that JAX_COORDINATOR_ADDRESS is set.
      processes: number of processes.
      process: index of this process, 0..processes-1.

    Raises:
      UsageError: the arguments do not go together.
      InputError: the environment has an impossible number of processes, or the processes do not find each other.
    """
    started = max(map(_number_in_environment, ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")))
    _check_processes(coordinator, processes, process, started)
    several = coordinator is not None or started > 1 or bool(os.environ.get("JAX_COORDINATOR_ADDRESS"))
    if not several or jax.distributed.is_initialized():
        return
    who = "this process" if process is None else f"process {process}"
    others = "the other processes" if processes is None else f"the other {processes - 1} of {processes} processes"
    log.info("%s waits for %s%s", who, others, "" if coordinator is None else f" at {coordinator}")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{who} and {others} do not find each other ({reason}); start all of them alike") from error
    log.info("all %d processes are here", jax.process_count())


def _number_in_environment(name: str) -> int:
    """The number of processes in an environment variable; 1 where it is not set."""
    text = os.environ.get(name, "1")
    if not text.isdecimal():
        raise InputError(f"{name} is {text!r} in the environment; expected a number of processes, or unset it")
    return int(text)


def _check_processes(coordinator: str | None, processes: int | None, process: int | None, started: int) -> None:
    """Raises UsageError unless the arguments of `initialize` go together.

    Args:
      started: number of processes that the environment says were started, which completes the arguments.
    """
    if coordinator is None:
        for flag, value in (("--processes", processes), ("--process", process)):
            if value is not None:
                raise UsageError(
                    f"{flag} {value}: needs --coordinator HOST:PORT, the address of process 0; add it, or leave out "
                    f"{flag} for a run of one process"
                )
        return
    port = re.fullmatch(r"\S+:(\d{1,5})", coordinator)
    if not port or not 0 < int(port[1]) < 2**16:
        raise UsageError(f"--coordinator {coordinator}: expected HOST:PORT, such as 10.0.0.1:1234")
    for flag, value in (("--processes", processes), ("--process", process)):
        if value is None and started < 2:
            raise UsageError(f"--coordinator {coordinator}: needs {flag}, which is missing")
    if processes is not None and processes < 1:
        raise UsageError(f"--processes {processes}: expected at least 1")
    if process is not None and not 0 <= process < (processes or started):
        raise UsageError(f"--process {process}: expected 0 to {(processes or started) - 1} of {processes or started}")


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of `devices` on the axis `AXIS`; by default of all devices, ordered by process."""
    devices = devices or sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding in which every device holds a copy."""
    return NamedSharding(mesh, P())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding in which axis `axis` is split over the devices."""
    return NamedSharding(mesh, P(*[None] * axis, AXIS))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Copies a tree of arrays to every device. Every process must pass equal values."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def shard(mesh: Mesh, rows: Any, axis: int = 0) -> Any:
    """Makes global arrays, split over the devices along `axis`, from the rows of each process.

    Args:
      rows: arrays whose axis `axis` has length B / processes, for a global batch of B.
    """
    sharding = split(mesh, axis)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), rows)


def local_rows(batch: int) -> slice:
    """Returns the contiguous rows of a global batch that this process provides."""
    local = batch // jax.process_count()
    return slice(jax.process_index() * local, (jax.process_index() + 1) * local)


def check_batch(mesh: Mesh, batches: Mapping[str, int], parts: int = 1) -> None:
    """Checks that global batches can be split over all devices.

    Args:
      batches: config section -> examples in its global batch.
      parts: number of parts a batch is cut into (`Train.accumulate`); each part is split over all devices.

    Raises:
      InputError: a batch is not divisible by `parts` times the number of devices.
    """
    for name, batch in batches.items():
        if batch % (unit := mesh.size * parts):
            lower, upper = batch // unit * unit, -(-batch // unit) * unit
            advice = f"{upper}" if lower == 0 else f"{lower} or {upper}"
            raise InputError(
                f"{name}.batch: {batch} examples{f' in {parts} parts' if parts > 1 else ''} do not divide over "
                f"{mesh.size} devices; set it to {advice}"
            )


def barrier(name: str) -> None:
    """Blocks until every process has called it with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def on_primary(name: str, function: Callable, *args: Any) -> None:
    """Calls a function in process 0; the other processes wait until it returns.

    Args:
      name: name of the barrier.
    """
    if is_primary():
        function(*args)
    barrier(name)


def gather(array: np.ndarray) -> np.ndarray:
    """Stacks the arrays of all processes, which must have equal shapes: [processes, ...]."""
    array = np.asarray(array)
    return array[None] if jax.process_count() == 1 else multihost_utils.process_allgather(array)


def is_primary() -> bool:
    """Whether this is process 0, which alone writes the files that all processes share."""
    return jax.process_index() == 0
