"""A mesh of one axis over all devices of all processes, and the placement of arrays on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scarce_jax.errors import InputError

AXIS = "data"


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the processes of a multi-host run. Without arguments a run of one process does nothing.

    Args:
      coordinator: "host:port" of process 0. None takes it from the environment, as `jax.distributed.initialize` does,
        where Slurm or Open MPI start more than one process or JAX_COORDINATOR_ADDRESS is set.
      processes: number of processes.
      process: this process's index, 0..processes-1.
    """
    if jax.distributed.is_initialized():
        return
    if coordinator is not None:
        jax.distributed.initialize(coordinator, processes, process)
        return
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        if int(os.environ.get(name, "1")) > 1:
            jax.distributed.initialize()
            return
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        jax.distributed.initialize()


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of `devices`, or of all devices in the order of their processes, on the axis `AXIS`."""
    devices = devices or sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array of which every device holds a copy."""
    return NamedSharding(mesh, P())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The sharding of an array that is split over the devices along its axis `axis`."""
    return NamedSharding(mesh, P(*[None] * axis, AXIS))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Arrays of which every device holds a copy. Every process must pass equal values."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def shard(mesh: Mesh, rows: Any, axis: int = 0) -> Any:
    """Global arrays split over the devices along `axis`, from the rows of each process.

    Args:
      rows: arrays whose axis `axis` has length B / processes, for a global batch of B.
    """
    sharding = split(mesh, axis)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), rows)


def local_rows(batch: int) -> slice:
    """The contiguous rows of a global batch that this process provides. Concatenated by process they are the batch."""
    local = batch // jax.process_count()
    return slice(jax.process_index() * local, (jax.process_index() + 1) * local)


def check_batch(mesh: Mesh, batches: Mapping[str, int], parts: int = 1) -> None:
    """Raises InputError where a global batch is not divisible by the number of devices.

    Args:
      batches: name of each batch's config section -> examples in the global batch.
      parts: into how many the batch is cut (`Train.accumulate`); each is split over all devices.
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
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def is_primary() -> bool:
    """True in process 0, which alone writes the files that all processes share, such as JSON files and logs."""
    return jax.process_index() == 0
