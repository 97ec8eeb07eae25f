"""Affinities of pairs of pixels from a boundary map (IRNet: Ahn et al., 2019).

The affinity of a pair of pixels is 1 less the largest boundary probability on the line between them. Pairs are named by
the vector from the first pixel, the source, to the second. One of each pair of opposite vectors is enough.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

Vector = tuple[int, int]
"""(rows, columns); rows are not negative."""


@functools.cache
def vectors(radius: int) -> tuple[Vector, ...]:
    """The vectors to half of the pixels closer than `radius`, in the authors' order: 34 at radius 5, 152 at 10."""
    right = [(0, x) for x in range(1, radius)]
    below = [(y, x) for y in range(1, radius) for x in range(1 - radius, radius) if x * x + y * y < radius * radius]
    return tuple(right + below)


@functools.cache
def path(vector: Vector) -> tuple[Vector, ...]:
    """The pixels on the way from (0, 0) to `vector`, both included: those less than 1 from the line, inside its box."""
    rows, columns = vector
    box = ((y, x) for y in range(rows + 1) for x in range(min(0, columns), max(0, columns) + 1))
    return tuple(p for p in box if (rows * p[1] - columns * p[0]) ** 2 < rows * rows + columns * columns)


def sources(x: jax.Array, radius: int) -> jax.Array:
    """The pixels [B, H - R, W - 2 * R, ...] of [B, H, W, ...] that have every pair inside the image; R = radius - 1."""
    return targets(x, radius, (0, 0))


def targets(x: jax.Array, radius: int, vector: Vector) -> jax.Array:
    """The pixels at `vector` from those of `sources`, [B, H - R, W - 2 * R, ...]."""
    reach = radius - 1
    rows, columns = x.shape[1] - reach, x.shape[2] - 2 * reach
    first = reach + vector[1]
    return x[:, vector[0] : vector[0] + rows, first : first + columns]


def affinities(edge: jax.Array, radius: int) -> jax.Array:
    """Affinities of the pairs of `sources`.

    Args:
      edge: floating [B, H, W], boundary probabilities in 0..1; H > radius - 1 and W > 2 * (radius - 1).

    Returns:
      [P, B, H - R, W - 2 * R] in 0..1, for the P pairs of `vectors(radius)` in order; R = radius - 1.
    """
    paths = [path(vector) for vector in vectors(radius)]
    points = sorted({point for points in paths for point in points})
    shifted = jnp.stack([targets(edge, radius, point) for point in points])  # [N, B, h, w]
    place = {point: index for index, point in enumerate(points)}
    # Paths of one length are one gather: 1,900 slices would be as many operations to compile.
    lengths = [len(points) for points in paths]
    largest: list[jax.Array | None] = [None] * len(paths)
    for length in sorted(set(lengths)):
        members = [index for index, other in enumerate(lengths) if other == length]
        indices = np.array([[place[point] for point in paths[index]] for index in members])
        along = shifted[indices].max(1)  # [n, length, B, h, w] -> [n, B, h, w]
        for row, index in enumerate(members):
            largest[index] = along[row]
    return 1 - jnp.stack(largest)
