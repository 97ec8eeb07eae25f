"""The batches of training steps: which rows of a source, where they lie, and their transforms."""

from __future__ import annotations

import functools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.order import Order
from scarce_jax.data.source import Rows, load_all, stream
from scarce_jax.recipe import Source
from scarce_jax.training.inputs import draws
from scarce_jax.training.state import named_key

CPU_RESIDENT_BYTES = 2 << 30
RESIDENT_SHARE = 0.25
CANVAS_WASTE = 3.0
STEPS_PLACED = 64
"""Steps whose order of examples is placed on the devices at once."""


class TrainInput:
    """The batches of one source in training.

    Attributes:
      source: the source.
      size: examples in a global batch.
      examples: examples of the source.
      transform: what the step applies to each row: the transform of the source, unless its rows are kept transformed.
      key: PRNG key of the transform.
      resident: whether all decoded examples are in device memory. They are then replicated, and every device picks its
        rows; otherwise they are decoded as they are needed.
      arrays: the decoded examples of a resident source.
    """

    def __init__(
        self,
        source: Source,
        rows: Rows,
        seed: int,
        name: str,
        mesh: Mesh,
        threads: int,
        resident: bool | None,
    ):
        self._rows, self._mesh, self._threads = rows, mesh, threads
        self.source, self.size, self.examples, self._draws = source, source.batch, len(rows), 1
        self.transform = source.transform
        weights = draws(source, rows.reader, rows.indices) if source.weight else None
        self._order = Order(len(rows), zlib.crc32(f"{seed}/{name}".encode()), weights)
        self.key = named_key(seed, name, "transform")
        wanted = resident if source.resident is None else source.resident
        self.resident = source.cache is not None or (fits(rows, mesh) if wanted is None else wanted)
        self.arrays = mesh_lib.replicate(mesh, self.load()) if self.resident and source.cache is None else {}

    def load(self) -> dict[str, np.ndarray]:
        """Decodes all examples: fields with a leading axis of their number."""
        return load_all(self._rows, self._threads)

    def keep(self, arrays: dict[str, Any], draws: int) -> None:
        """Makes rows that are already transformed the content of the source.

        Args:
          arrays: fields on the devices, with a leading axis of draws * examples.
          draws: number of rows of each example. Each epoch takes one of them, in turn.
        """
        self.arrays, self._draws, self.transform = arrays, draws, transformed_before

    def _places(self, step: int) -> np.ndarray:
        """Rows of the resident arrays that are the global batch of a step: int32 [size]."""
        epochs = np.arange(step * self.size, (step + 1) * self.size) // self._order.epoch_length
        return (self._order.batch(step, self.size) + epochs % self._draws * self.examples).astype(np.int32)

    def ids(self, step: int) -> list[str]:
        """The ids of the examples in the global batch of a step, in the order of its rows."""
        return [self._rows.ids[k] for k in self._order.batch(step, self.size)]

    def batches(
        self, start: int, steps: int, dispatches: Iterable[tuple[int, int]] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yields the batches of steps `start`, `start` + 1, ... on the devices.

        Args:
          start: the first step.
          steps: the end of the steps.
          dispatches: (first step, number of steps) of each item; only for resident sources. None: one step each.

        Yields:
          `decoded`: rows of the source; `row`: int32, their numbers in the global batch. Arrays have a leading axis of
          the number of steps if that is above 1.
        """
        local = mesh_lib.local_rows(self.size)
        numbers = np.arange(self.size, dtype=np.int32)[local]
        if self.resident:
            yield from self._resident(numbers, local, dispatches or ((step, 1) for step in range(start, steps)))
            return
        shard = (jax.process_index(), jax.process_count())
        decoded = stream(
            lambda p: self._rows[self._order[p]],
            steps * self.size,
            self.size,
            shard=shard,
            start=start,
            threads=self._threads,
        )
        for batch in decoded:
            yield mesh_lib.shard(self._mesh, {"row": numbers, "decoded": batch})

    def _resident(
        self, numbers: np.ndarray, local: slice, dispatches: Iterable[tuple[int, int]]
    ) -> Iterator[dict[str, Any]]:
        """Yields batches of resident examples.

        The order of many steps is placed on the devices at once, and their place in it is counted there, so that a
        dispatch transfers nothing.
        """
        index, place, end = None, None, 0

        @functools.cache
        def rows(count: int) -> jax.Array:
            shape = numbers.shape if count == 1 else (count, *numbers.shape)
            return mesh_lib.shard(self._mesh, np.broadcast_to(numbers, shape), int(count > 1))

        for first, count in dispatches:
            if first + count > end:
                end = first + max(count, STEPS_PLACED)
                order = np.stack([self._places(step)[local] for step in range(first, end)])
                index = mesh_lib.shard(self._mesh, order, axis=1)
                place = mesh_lib.replicate(self._mesh, np.int32(0))
            decoded, place = _pick(self._mesh, count)(self.arrays, index, place)
            yield {"row": rows(count), "decoded": decoded}


def next_batches(
    sources: Mapping[str, Iterator[dict[str, Any]]], inputs: Mapping[str, TrainInput]
) -> tuple[dict[str, dict[str, Any]], float]:
    """The next batch of every source, and the seconds that they were waited for.

    Resident sources count as not waited for: no data are on their way, but a CPU picks their rows only after the step
    before.
    """
    batches, waited = {}, 0.0
    for name, source in sources.items():
        began = time.perf_counter()
        batches[name] = next(source)
        if not inputs[name].resident:
            waited += time.perf_counter() - began
    return batches, waited


def transformed_before(row: dict, key: jax.Array, consts: Mapping) -> dict:
    """Transform of rows that are kept as the step reads them."""
    return row


@functools.lru_cache(maxsize=8)
def _pick(mesh: Mesh, count: int) -> Callable:
    """The jitted `(arrays, index, place) -> (rows, place + count)` for the rows of `count` steps, beginning at `place`.

    `index` is int32 [steps, B], split over the devices along its last axis. The rows have a leading axis of `count` if
    that is above 1. It is a program of its own, because its shapes depend on the number of examples, and those of the
    step do not.
    """

    def pick(
        arrays: Mapping[str, jax.Array], index: jax.Array, place: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        chosen = jax.lax.dynamic_slice_in_dim(index, place, count)
        if count == 1:
            chosen = chosen[0]
        return jax.tree.map(lambda x: x[chosen], arrays), place + count

    rows = P(mesh_lib.AXIS) if count == 1 else P(None, mesh_lib.AXIS)
    return jax.jit(jax.shard_map(pick, mesh=mesh, in_specs=(P(), P(None, mesh_lib.AXIS), P()), out_specs=(rows, P())))


def fits(rows: Rows, mesh: Mesh, memory: int | None = None) -> bool:
    """Whether a source should be resident: its canvases fit in memory, and are not mostly padding.

    Args:
      memory: bytes of a device that is not at hand; default what the mesh's devices report.
    """
    height, width = rows.canvas
    if rows.size is None:
        areas = rows.reader.sizes[list(rows.indices)].prod(axis=1, dtype=np.int64)
        if height * width > CANVAS_WASTE * areas.mean():
            return False
    masks = len(rows.fields) + bool(rows.labels)
    needed = len(rows) * height * width * (3 + masks)
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return needed * len(mesh.local_devices) <= CPU_RESIDENT_BYTES
    if memory is None:
        memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    return needed <= RESIDENT_SHARE * memory


def make_batch(
    mesh: Mesh, transform: Callable, draw: Mapping[str, Any], key: jax.Array, consts: Any
) -> dict[str, jax.Array]:
    """Transforms the rows of a global batch, inside the step.

    Every device transforms its own rows, so no image moves between devices. The key of a row depends on its number in
    the global batch, so the result does not depend on the number of devices.

    Args:
      mesh: the mesh of the step.
      transform: `(row, key, consts) -> row`.
      draw: an item of `TrainInput.batches`.
      key: PRNG key of the step and source.
      consts: constants of the stage.
    """

    def local(draw, key, consts):
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(draw["row"])
        return jax.vmap(lambda row, k: transform(row, k, consts))(draw["decoded"], keys)

    specs = (P(mesh_lib.AXIS), P(), P())
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(mesh_lib.AXIS))(draw, key, consts)
