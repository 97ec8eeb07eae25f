"""Confidences as whole numbers, 0 to 255, so that a threshold keeps the same pixels wherever it is applied."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def quantised(confidence: jax.Array) -> jax.Array:
    """Confidences 0..1 times 255, rounded down, uint8: only a certain pixel reaches a threshold of 1."""
    return jnp.floor(confidence * 255).astype(jnp.uint8)


def least_level(threshold: float) -> int:
    """The least quantised confidence that reaches a threshold; above 255 if none does."""
    return math.ceil(255 * threshold)


def reaches(confidence: jax.Array, threshold: float) -> jax.Array:
    """Whether confidences 0..1, float of any shape, reach a threshold once they are quantised: bool."""
    # A threshold above 1 is no uint8.
    return quantised(confidence).astype(jnp.int32) >= least_level(threshold)
