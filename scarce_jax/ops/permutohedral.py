"""Gaussian filtering of scattered features on the permutohedral lattice, with static shapes.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice". Each point is splatted onto
the d + 1 corners of the simplex around it, the lattice is blurred by [1 2 1] / 4 along its d + 1 directions, and each
point reads its corners again. Only vertices that some point touches exist, so what would pass through others is lost.

A lattice point has d + 1 coordinates v_0..v_d that are congruent modulo d + 1 and sum to 0. The quotients
(v_j - v_{j+1}) / (d + 1) can be any d integers, and are packed into one uint32 key. A step along the lattice then adds
a constant to the key, and vertices are found by sorting and binary search, without a hash table.
"""

from __future__ import annotations

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.errors import InputError

NOWHERE = np.uint32(2**32 - 1)
"""Key of no vertex."""


@flax.struct.dataclass
class Corners:
    """Places of N points in the lattice.

    Attributes:
      vertex: int32 [N, d + 1], the vertices of each point's simplex, numbered from 0 by increasing key.
      weight: float32 [N, d + 1], barycentric weights, which sum to 1; 0 for points that are not valid.
      key: uint32 [N (d + 1)], keys of the vertices in increasing order, and 2**32 - 1 after the last vertex.
      count: int32 [], number of vertices.
    """

    vertex: jax.Array
    weight: jax.Array
    key: jax.Array
    count: jax.Array


def corners(features: jax.Array, valid: jax.Array, extents: tuple[float, ...]) -> Corners:
    """Finds the simplex of each point.

    Args:
      features: float32 [N, d], divided by the standard deviations of the kernel, each in 0..extents.
      valid: bool [N], False for points that send and receive nothing.
      extents: static, the largest value of each feature.

    Raises:
      InputError: the lattice over these extents may have more points than a uint32 can count.
    """
    dim = features.shape[1]
    steps, low = _packing(extents)
    elevated = jnp.stack(_elevated(features), 1)  # [N, d + 1], whose rows sum to 0
    # The nearest point of remainder 0: all coordinates are rounded, then those with the largest rounding errors are
    # corrected, so that they sum to 0 again.
    quotient = jnp.round(elevated / (dim + 1)).astype(jnp.int32)
    rest = elevated - quotient * (dim + 1)
    slots = jnp.arange(dim + 1)
    ahead, here = rest[:, None, :], rest[:, :, None]
    rank = ((ahead > here) | ((ahead == here) & (slots < slots[:, None]))).sum(2, dtype=jnp.int32)
    rank += quotient.sum(1, keepdims=True)
    wrap = (rank < 0).astype(jnp.int32) - (rank > dim).astype(jnp.int32)
    quotient, rank = quotient + wrap, rank + (dim + 1) * wrap
    rest = elevated / (dim + 1) - quotient

    ranked = jnp.where(rank[:, :, None] == slots, rest[:, :, None], 0).sum(1)  # [N, d + 1], largest first
    gaps = ranked[:, :-1] - ranked[:, 1:]
    weight = jnp.concatenate([1 - gaps.sum(1, keepdims=True), gaps[:, ::-1]], 1)
    base = ((quotient[:, :-1] - quotient[:, 1:] - low).astype(jnp.uint32) * _strides(steps)).sum(1, dtype=jnp.uint32)
    # From the corner of remainder k to that of k + 1 the coordinate of rank d - k falls by d and the others rise by 1.
    moves = jnp.where(rank[:, :, None] == slots, _moves(steps)[:, None], 0).sum(1, dtype=jnp.uint32)
    path = jnp.cumsum(moves[:, :0:-1], 1, dtype=jnp.uint32)
    own = jnp.where(valid[:, None], jnp.concatenate([base[:, None], base[:, None] + path], 1), NOWHERE)

    key = jnp.sort(own.reshape(-1))
    first = jnp.concatenate([key[:1] != NOWHERE, (key[1:] != key[:-1]) & (key[1:] != NOWHERE)])
    # A second sort is faster than a scatter, on a CPU too.
    key = jnp.sort(jnp.where(first, key, NOWHERE))
    return Corners(
        vertex=jnp.searchsorted(key, own).astype(jnp.int32),
        weight=jnp.where(valid[:, None], weight, 0),
        key=key,
        count=first.sum(dtype=jnp.int32),
    )


def neighbours(at: Corners, extents: tuple[float, ...], size: int) -> jax.Array:
    """Neighbours of each vertex on both sides along each direction: int32 [d + 1, 2, size], `size` if there is none.

    Args:
      size: static room for vertices, at least `at.count`.
    """
    key = at.key[:size]
    moves = _moves(_packing(extents)[0])
    sought = key + jnp.stack([moves, -moves], 1)[:, :, None]
    vertex = jnp.searchsorted(key, sought).astype(jnp.int32)
    hit = (key.at[vertex].get(mode="clip") == sought) & (key != NOWHERE)
    return jnp.where(hit, vertex, size)


def lattice_filter(values: jax.Array, at: Corners, near: jax.Array) -> jax.Array:
    """Sums over all points, weighted by a Gaussian of their distance, up to one constant factor.

    Args:
      values: float32 [N, C], values of the points.
      near: result of `neighbours`, whose size is the room for vertices.

    Returns:
      float32 [N, C]; 0 for points that are not valid.
    """

    def splat(vertices: jax.Array, corner: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        to, weight = corner
        return vertices.at[to].add(weight[:, None] * values, mode="drop"), None

    # `zeros_like`, so that under `shard_map` the result varies over devices as the values do.
    vertices = jnp.zeros_like(values, shape=(near.shape[2], values.shape[1]))
    vertices, _ = jax.lax.scan(splat, vertices, (at.vertex.T, at.weight.T))

    def blur(vertices: jax.Array, sides: jax.Array) -> tuple[jax.Array, None]:
        both = [vertices.at[side].get(mode="fill", fill_value=0) for side in sides]
        return vertices / 2 + (both[0] + both[1]) / 4, None

    # In an unrolled loop XLA would fuse the gathers and compute each vertex many times.
    vertices, _ = jax.lax.scan(blur, vertices, near)
    read = [at.weight[:, k, None] * vertices.at[at.vertex[:, k]].get(mode="clip") for k in range(at.vertex.shape[1])]
    return sum(read[1:], read[0])


def _elevated(features: jax.Array | np.ndarray) -> list:
    """Coordinates of features [N, d] on the plane of sum 0, scaled for a blur of unit deviation: d + 1 arrays [N].

    The order of operations is that of the authors: where a feature is 0, two coordinates are exactly equal. A matrix
    product may round them differently, which would move the point to another simplex and add vertices to the lattice.
    """
    dim = features.shape[1]
    total, coordinates = 0, []
    for j in range(dim, 0, -1):
        term = features[:, j - 1] * (math.sqrt(2 / 3) * (dim + 1) / math.sqrt(j * (j + 1)))
        coordinates.append(total - j * term)
        total = total + term
    return [total, *coordinates[::-1]]


def _packing(extents: tuple[float, ...]) -> tuple[tuple[int, ...], np.ndarray]:
    """Numbers of values of the d packed integers, and their least values, int32 [d].

    Each range has one more value on either side for neighbours, which are looked up whether they exist or not, and one
    more for rounding.
    """
    dim = len(extents)
    columns = np.stack(_elevated(np.eye(dim)), 1)
    slopes = (columns[:, :-1] - columns[:, 1:]) / (dim + 1) * np.asarray(extents)[:, None]  # [feature, difference]
    low = np.floor(np.minimum(slopes, 0).sum(0)).astype(int) - 2
    high = np.ceil(np.maximum(slopes, 0).sum(0)).astype(int) + 2
    steps = tuple(int(n) for n in high - low + 1)
    if math.prod(steps) >= NOWHERE:
        raise InputError(
            f"image of {', '.join(f'{e:.0f}' for e in extents)} standard deviations: its lattice has up to "
            f"{math.prod(steps)} points; expected fewer than 2**32, so use a smaller image or larger deviations"
        )
    return steps, low.astype(np.int32)


def _strides(steps: tuple[int, ...]) -> np.ndarray:
    return np.cumprod([1, *steps[:-1]]).astype(np.uint32)


def _moves(steps: tuple[int, ...]) -> np.ndarray:
    """Change of a key if coordinate j falls by d + 1 and all rise by 1: uint32 [d + 1], modulo 2**32."""
    strides = np.concatenate([[0], _strides(steps).astype(np.int64), [0]])
    return (strides[:-1] - strides[1:]).astype(np.uint32)
