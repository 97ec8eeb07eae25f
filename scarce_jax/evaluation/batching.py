"""Passes over data: every row once, in full batches over all devices."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.source import Row, stream

Key = TypeVar("Key", bound=Hashable)


def full_batches(
    load: Callable[[int], Row], groups: Mapping[Key, Sequence[int]], *, batch: int, mesh: Mesh, threads: int
) -> Iterator[tuple[Key, Sequence[int], dict[str, jax.Array]]]:
    """Yields global batches of rows, split over the devices.

    The last batch of a group is filled with repeats of its last row; the field `counts`, bool [B], is False for them.

    Args:
      load: number -> row; called once per number.
      groups: group -> numbers of its rows, whose arrays have equal shapes; batches come in this order.
      batch: rows per device.
      mesh: a mesh of one axis.
      threads: loading threads.

    Yields:
      The group, the numbers of the batch's rows without the repeats, and the arrays [batch * devices, ...].
    """
    total = batch * mesh.size
    shard = jax.process_index(), jax.process_count()
    for key, numbers in groups.items():
        padded = -(-len(numbers) // total) * total
        for k, rows in enumerate(stream(_filled(load, numbers), padded, total, shard=shard, threads=threads)):
            yield key, numbers[k * total : (k + 1) * total], mesh_lib.shard(mesh, rows)


def _filled(load: Callable[[int], Row], numbers: Sequence[int]) -> Callable[[int], Row]:
    """Position -> row. Positions beyond the last number repeat the last row, which is loaded once."""
    last = len(numbers) - 1
    repeated: dict[int, Row] = {}

    def get(position: int) -> Row:
        if position < last:
            return {**load(numbers[position]), "counts": np.bool_(True)}
        if last not in repeated:
            repeated[last] = load(numbers[last])
        return {**repeated[last], "counts": np.bool_(position == last)}

    return get


def local(array: jax.Array) -> np.ndarray:
    """Returns this process's rows of an array that is split over the devices."""
    shards = sorted(array.addressable_shards, key=lambda s: s.index[0].start or 0)
    return np.concatenate([np.asarray(s.data) for s in shards])
