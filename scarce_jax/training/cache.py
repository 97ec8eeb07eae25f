"""Frozen features of training images, computed once before the first step and kept on the devices."""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax.errors import InputError, plural
from scarce_jax.models.encoded import Encoded, encode, levels_read
from scarce_jax.recipe import Cache, NetState, Train
from scarce_jax.training.batches import TrainInput, make_batch

log = logging.getLogger("scarce_jax")

SHARE = 0.4
"""Largest share of a device's memory, or of the host's, that the features of all sources together may take."""


def fill(
    stage: Train, inputs: Mapping[str, TrainInput], nets: Mapping[str, NetState], mesh: Mesh, consts: Mapping[str, Any]
) -> None:
    """Replaces the images of every source that has a `Cache` by the frozen features of its net.

    Args:
      stage: the stage.
      inputs: its opened sources, which are changed.
      nets: role -> net, not packed. Only frozen parameters are read, so that any step gives the same features.
      mesh: the mesh of the run.
      consts: constants of the stage.

    Raises:
      InputError: the features take too much memory.
    """
    room = SHARE * _memory(mesh)
    for name, source in stage.sources.items():
        if source.cache is not None:
            began = time.perf_counter()
            size = _fill(f"{stage.name}.cache", source.cache, inputs[name], nets[source.cache.net], mesh, consts, room)
            room -= size
            log.info(
                "%s: frozen features of %s of %s, %.2f GB, computed in %.0f s",
                *(stage.name, plural(source.cache.draws, "draw"), plural(inputs[name].examples, "image")),
                *(size / 1e9, time.perf_counter() - began),
            )


def _fill(
    where: str, cache: Cache, source: TrainInput, net: NetState, mesh: Mesh, consts: Mapping[str, Any], room: float
) -> int:
    """Returns the bytes that the features take on each device, at most `room`."""
    variables, images = net.variables, source.load()

    def transformed(variables: Any, draw: Mapping[str, Any], key: jax.Array, consts: Mapping) -> tuple[dict, dict]:
        rows = make_batch(mesh, source.source.transform, draw, key, consts)
        return rows, cache.module.apply(variables, rows["image"], method=encode)

    def numbered(numbers: np.ndarray) -> dict[str, Any]:
        local = numbers[mesh_lib.local_rows(len(numbers))]
        return mesh_lib.shard(mesh, {"row": local, "decoded": {k: x[local] for k, x in images.items()}})

    count = source.examples
    batch = mesh.size * math.ceil(min(source.size, count) / mesh.size)
    padded = np.arange(batch * math.ceil(count / batch), dtype=np.int32) % count
    rows, levels = jax.eval_shape(transformed, variables, numbered(padded[:batch]), source.key, consts)
    size = rows["image"].shape[1:3]

    def rest(encoded: Encoded) -> Any:
        others = (jnp.zeros(rows[field].shape, rows[field].dtype) for field in cache.fields[1:])
        rngs = {"dropout": jax.random.key(0)}
        return cache.module.apply(variables, encoded, *others, train=True, mutable=["batch_stats"], rngs=rngs)

    read = levels_read(rest, cache.module.backbone.frozen_levels, levels, size)
    unread = tuple((name, x.shape[1:], x.dtype) for name, x in levels.items() if name not in read)

    def features(variables: Any, draw: Mapping[str, Any], key: jax.Array, consts: Mapping) -> dict:
        rows, levels = transformed(variables, draw, key, consts)
        return {**rows, "image": Encoded({name: levels[name] for name in read}, unread, size)}

    shapes = jax.eval_shape(features, variables, numbered(padded[:batch]), source.key, consts)
    needed = sum(x.dtype.itemsize * math.prod(x.shape[1:]) for x in jax.tree.leaves(shapes)) * count * cache.draws
    if needed > room:
        raise InputError(
            f"--{where} {cache.draws}: the frozen features of {count} images take {needed / 1e9:.1f} GB, expected at "
            f"most {room / 1e9:.1f} GB; lower it or the crop, or leave it out"
        )
    replicated = mesh_lib.replicated(mesh)
    compute = jax.jit(features, out_shardings=replicated)
    parts = [
        compute(variables, numbered(padded[first : first + batch]), key, consts)
        for draw in range(cache.draws)
        for first in range(0, count, batch)
        for key in (jax.random.fold_in(source.key, draw),)
    ]
    join = jax.jit(functools.partial(_joined, count), out_shardings=replicated)
    source.keep(join(parts), cache.draws)
    return needed


def _joined(count: int, parts: list[Any]) -> Any:
    """Joins the parts of each draw, and the draws: [draws * count, ...]. The last part of a draw is padded."""

    def join(*arrays: jax.Array) -> jax.Array:
        per_draw = -(-count // arrays[0].shape[0])
        draws = (arrays[k : k + per_draw] for k in range(0, len(arrays), per_draw))
        return jnp.concatenate([jnp.concatenate(draw)[:count] for draw in draws])

    return jax.tree.map(join, *parts)


def _memory(mesh: Mesh) -> float:
    """Bytes of a device, or of the host that stands in for it; infinite where a device does not tell."""
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(mesh.local_devices)
    return (device.memory_stats() or {}).get("bytes_limit", math.inf)
