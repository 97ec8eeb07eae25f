"""The random walk that spreads class scores over pixels without a boundary between them (IRNet: Ahn et al., 2019)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from scarce_jax.ops.affinity import Vector, affinities, vectors


def random_walk(
    scores: jax.Array, edge: jax.Array, *, radius: int = 5, beta: float = 10.0, steps: int = 256
) -> jax.Array:
    """Spreads scores over pixels of high affinity.

    The transition matrix T is that of the authors' code (jiwoon-ahn/irn): affinities to the power `beta`, 1 on the
    diagonal, each column divided by its sum. The walk multiplies scores * (1 - edge) by T `steps` times. The authors
    square T, a matrix of all pairs of pixels, 8 times for the same 256 steps; here a step costs 69 multiplications a
    pixel and class at radius 5, and T takes 69 values a pixel.

    Args:
      scores: floating [B, H, W, K], not negative.
      edge: floating [B, H, W], boundary probabilities in 0..1.

    Returns:
      float32 [B, H, W, K].
    """
    height, width = edge.shape[1:]
    reach = radius - 1
    edge = edge.astype(jnp.float32)
    # Pairs that leave the image have a boundary on the way.
    around = ((0, 0), (0, reach), (reach, reach))
    forward = affinities(jnp.pad(edge, around, constant_values=1.0), radius) ** beta  # [P, B, H, W]
    pairs = vectors(radius)

    def shift(x: jax.Array, vector: Vector) -> jax.Array:
        """x [B, H, W, ...] at each pixel plus `vector`, 0 outside the image."""
        (top, bottom), (left, right) = ((max(-v, 0), max(v, 0)) for v in vector)
        x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), *((0, 0),) * (x.ndim - 3)))
        return x[:, bottom : bottom + height, right : right + width]

    # The affinity of a pair, seen from its source and from its target.
    backward = [shift(a, (-v[0], -v[1])) for a, v in zip(forward, pairs, strict=True)]
    total = 1 + forward.sum(0) + sum(backward)  # [B, H, W]

    def step(_: int, x: jax.Array) -> jax.Array:
        spread = x
        for index, (rows, columns) in enumerate(pairs):
            spread += forward[index][..., None] * shift(x, (rows, columns))
            spread += backward[index][..., None] * shift(x, (-rows, -columns))
        return spread / total[..., None]

    start = scores.astype(jnp.float32) * (1 - edge)[..., None]
    return jax.lax.fori_loop(0, steps, step, start)
