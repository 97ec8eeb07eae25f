"""One pass over data: every row once, in whole batches over all devices."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.source import Row, stream
from scarce_jax.evaluation.views import native_canvas

Key = TypeVar("Key", bound=Hashable)


def batches(
    load: Callable[[int], Row], groups: Mapping[Key, Sequence[int]], *, batch: int, mesh: Mesh, threads: int
) -> Iterator[tuple[Key, Sequence[int], dict[str, jax.Array]]]:
    """Global batches of rows, split over the devices.

    Repeats of a group's last row fill its last batch; the field `counts`, bool [B], is False for them.

    Args:
      load: the row of a number; called once for every number.
      groups: numbers of the rows whose arrays have equal shapes, in the order in which they come.
      batch: rows per device.
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
    """Position -> row. Positions beyond the last number repeat its row, which is loaded once."""
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
    """This process's rows of an array that is split over the devices."""
    shards = sorted(array.addressable_shards, key=lambda s: s.index[0].start or 0)
    return np.concatenate([np.asarray(s.data) for s in shards])


def by_canvas(sizes: Iterable[Any]) -> dict[tuple[int, int], list[int]]:
    """Numbers of images by their native canvas, in order.

    Args:
      sizes: (height, width) of every image.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for k, (height, width) in enumerate(sizes):
        groups.setdefault(native_canvas(int(height), int(width)), []).append(k)
    return groups
