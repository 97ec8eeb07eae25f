"""One mesh axis over every device of every process, and the few ways arrays get onto it."""

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
    """Joins the processes of a multi-host run; does nothing for a run of one process.

    With no arguments the cluster is found in the environment: Slurm, Open MPI and Kubernetes as
    `jax.distributed.initialize` finds them, where they say that there is more than one process.
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
    """All devices (or the given ones) on the one axis, process by process."""
    devices = devices or sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    return NamedSharding(mesh, P(*[None] * axis, AXIS))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """The same value on every device; every process must hold it."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def shard(mesh: Mesh, rows: Any, axis: int = 0) -> Any:
    """Arrays whose axis `axis` holds this process's rows, as one global array split over the devices along it."""
    sharding = split(mesh, axis)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), rows)


def local_rows(batch: int) -> slice:
    """The rows of a global batch that this process provides: contiguous, so that their order never depends on NP."""
    local = batch // jax.process_count()
    return slice(jax.process_index() * local, (jax.process_index() + 1) * local)


def check_batch(mesh: Mesh, batches: Mapping[str, int]) -> None:
    """Raises InputError where a global batch does not divide over the devices."""
    for name, batch in batches.items():
        if batch % mesh.size:
            lower, upper = batch // mesh.size * mesh.size, -(-batch // mesh.size) * mesh.size
            advice = f"{upper}" if lower == 0 else f"{lower} or {upper}"
            raise InputError(
                f"{name}.batch: {batch} examples do not divide over {mesh.size} devices; set it to {advice}"
            )


def barrier(name: str) -> None:
    """Waits for every process."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def is_primary() -> bool:
    """True in the one process that writes what all share: JSON files, logs, records' index."""
    return jax.process_index() == 0
