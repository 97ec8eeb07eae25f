"""Bias, shortcut and ReLU after a convolution, with a written-out gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from scarce_jax.ops.vary import vary_alike


def add_bias(x: jax.Array, bias: jax.Array | None, shortcut: jax.Array | None, relu: bool) -> jax.Array:
    """Adds a bias and a shortcut, and applies a ReLU.

    The gradient of the bias is summed in float32 whatever the dtype of x, because a sum over the pixels of a batch in
    bfloat16 loses digits. The gradient of the ReLU looks at its result, which the next layer keeps anyway. So XLA can
    fuse all of it into the convolution before, and what the ReLU reads need not be kept.

    Args:
      x: floating [B, ..., C].
      bias: float32 [C], or None.
      shortcut: of x's shape and dtype, or None.
      relu: whether the result is 0 where it would be negative.

    Returns:
      [B, ..., C] in x's dtype.
    """
    return _add_bias(*vary_alike(x, bias, shortcut), relu)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _add_bias(x: jax.Array, bias: jax.Array | None, shortcut: jax.Array | None, relu: bool) -> jax.Array:
    y = x if bias is None else x + bias.astype(x.dtype)
    if shortcut is not None:
        y += shortcut
    return jnp.maximum(y, 0) if relu else y


def _forward(
    x: jax.Array, bias: jax.Array | None, shortcut: jax.Array | None, relu: bool
) -> tuple[jax.Array, tuple[jax.Array | None, jax.Array | None, jax.Array | None]]:
    y = _add_bias(x, bias, shortcut, relu)
    # Of bias and shortcut the gradient only needs to know whether they are there.
    return y, (y if relu else None, bias, None if shortcut is None else jnp.zeros((), shortcut.dtype))


def _gradient(
    relu: bool, saved: tuple[jax.Array | None, jax.Array | None, jax.Array | None], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    y, bias, shortcut = saved
    if relu:
        # Without the barrier XLA turns max(y, 0) > 0 into y > 0, and keeps what the ReLU reads.
        cotangent = jnp.where(jax.lax.optimization_barrier(y) > 0, cotangent, jnp.zeros((), cotangent.dtype))
    axes = tuple(range(cotangent.ndim - 1))
    by_bias = None if bias is None else cotangent.sum(axes, dtype=jnp.float32)
    return cotangent, by_bias, None if shortcut is None else cotangent


_add_bias.defvjp(_forward, _gradient)
