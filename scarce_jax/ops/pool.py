"""Max-pooling that remembers where its maxima were, and the unpooling that puts values back there.

DeconvNet's pair (Noh et al., "Learning Deconvolution Network for Semantic Segmentation", section 3.1), which the
decoupled method takes over. Windows do not overlap, so pooling is a choice among the window's entries and unpooling a
masked copy: both, and both gradients, are one elementwise pass of comparisons and selections, without the scatter and
the gather of flat indices that frameworks use, and a switch takes one byte.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
from einops import rearrange


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool_with_switches(x: jax.Array, window: int = 2) -> tuple[jax.Array, jax.Array]:
    """Maximum over non-overlapping windows, and where in its window it was.

    The gradient goes to that one entry, also where others are equal. A window with a NaN gives NaN.

    Args:
      x: floating [B, H, W, C]; H and W multiples of `window`.
      window: side of the square windows, and their stride; 1 to 16, so that a switch fits a byte.

    Returns:
      The maxima [B, H/window, W/window, C] in x's dtype, and the switches, uint8 of the same shape: row * window +
      column inside the window, of the first of equal maxima in that order.

    Raises:
      ValueError: `window` or a side of x does not fit.
    """
    _check_window(window)
    if x.ndim != 4:
        raise ValueError(f"input to pool has shape {x.shape}; expected [B, H, W, C]")
    height, width = x.shape[1:3]
    if height % window or width % window:
        raise ValueError(f"input to pool is {height} x {width}; expected multiples of the window, {window}")
    windows = _windows(x, window)
    pooled = windows[:, :, 0, :, 0]
    switches = jnp.zeros(pooled.shape, jnp.uint8)
    for row, column in itertools.islice(itertools.product(range(window), repeat=2), 1, None):
        entry = windows[:, :, row, :, column]
        # A NaN is larger than nothing, so a comparison alone would lose it.
        larger = (entry > pooled) | jnp.isnan(entry)
        pooled = jnp.where(larger, entry, pooled)
        switches = jnp.where(larger, jnp.uint8(row * window + column), switches)
    return pooled, switches


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def unpool(x: jax.Array, switches: jax.Array, window: int = 2) -> jax.Array:
    """Puts every value at its switch's place in a window of zeros: the transpose of the pooling that gave `switches`.

    Args:
      x: floating [B, h, w, C].
      switches: uint8 of the same shape, as of `max_pool_with_switches` with the same `window`.
      window: 1 to 16.

    Returns:
      [B, window * h, window * w, C] in x's dtype. Its gradient picks the entries at the switches.

    Raises:
      ValueError: shapes or `window` do not fit, or the switches are not uint8.
    """
    _check_window(window)
    if x.ndim != 4 or x.shape != switches.shape:
        raise ValueError(f"values have shape {x.shape}, switches {switches.shape}; expected equal ones, [B, h, w, C]")
    if switches.dtype != jnp.uint8:
        raise ValueError(f"switches are {switches.dtype}; expected uint8, as max_pool_with_switches gives them")
    spread = jnp.where(_at_switch(switches, window), x[:, :, None, :, None], jnp.zeros((), x.dtype))
    return rearrange(spread, "b h i w j c -> b (h i) (w j) c")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pick(x: jax.Array, switches: jax.Array, window: int) -> jax.Array:
    """The entries at the switches, [B, H, W, C] -> [B, H/window, W/window, C]: the transpose of `unpool`."""
    windows = _windows(x, window)
    picked = windows[:, :, 0, :, 0]
    for row, column in itertools.islice(itertools.product(range(window), repeat=2), 1, None):
        picked = jnp.where(switches == row * window + column, windows[:, :, row, :, column], picked)
    return picked


def _windows(x: jax.Array, window: int) -> jax.Array:
    return rearrange(x, "b (h i) (w j) c -> b h i w j c", i=window, j=window)


def _at_switch(switches: jax.Array, window: int) -> jax.Array:
    """Boolean [B, h, window, w, window, C], true at one entry of every window."""
    places = jnp.arange(window * window, dtype=jnp.uint8).reshape(window, 1, window, 1)
    return switches[:, :, None, :, None] == places


def _check_window(window: int) -> None:
    if not 1 <= window <= 16:
        raise ValueError(f"pooling window is {window}; expected 1 to 16")


# The three maps are linear once the switches are known, and each other's transposes. Written out rather than derived:
# what is kept for the backward pass is then the switches, a byte per window, and not a mask of every entry.


def _pool_forward(x, window):
    pooled, switches = max_pool_with_switches(x, window)
    return (pooled, switches), switches


def _pool_backward(window, switches, cotangents):
    return (unpool(cotangents[0], switches, window),)


def _unpool_forward(x, switches, window):
    return unpool(x, switches, window), switches


def _unpool_backward(window, switches, cotangent):
    return _pick(cotangent, switches, window), None


def _pick_forward(x, switches, window):
    return _pick(x, switches, window), switches


def _pick_backward(window, switches, cotangent):
    return unpool(cotangent, switches, window), None


max_pool_with_switches.defvjp(_pool_forward, _pool_backward)
unpool.defvjp(_unpool_forward, _unpool_backward)
_pick.defvjp(_pick_forward, _pick_backward)
