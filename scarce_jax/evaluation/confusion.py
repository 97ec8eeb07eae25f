"""The confusion matrix, counted on the device; `data.figures` computes figures from it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange


def confusion(predicted: jax.Array, truth: jax.Array, classes: int) -> jax.Array:
    """Counts pixels by true class (row) and predicted class (column): int32 [K, K + 1], exact.

    The last column counts predictions outside 0..K-1, such as the 255 of a coarse mask. Pixels whose truth is outside
    0..K-1 (255 = void) do not count. Add the matrices of several batches on the host, as int64.

    Args:
      predicted: integer [..., H, W].
      truth: uint8, of the same shape.
      classes: K, static.

    Raises:
      ValueError: the shapes differ, a dtype is not integer, or the counts could overflow.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted has shape {predicted.shape}, truth {truth.shape}; expected equal ones")
    for name, array in (("predicted", predicted), ("truth", truth)):
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name} has dtype {array.dtype}, expected integers")
    if truth.size >= 2**31:
        raise ValueError(f"{truth.size} pixels in one call, expected less than 2**31 (int32 counts); pass fewer images")
    column = jnp.where((predicted >= 0) & (predicted < classes), predicted.astype(jnp.int32), classes)
    row = truth.astype(jnp.int32)
    # Pixels that do not count go to an extra bin, which is dropped.
    nowhere = classes * (classes + 1)
    cell = jnp.where((row >= 0) & (row < classes), row * (classes + 1) + column, nowhere)
    counts = jnp.bincount(jnp.ravel(cell), length=nowhere + 1)
    return rearrange(counts[:nowhere].astype(jnp.int32), "(k c) -> k c", k=classes)
