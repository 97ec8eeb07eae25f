"""Max-pooling that returns the places of its maxima (switches), and the unpooling that puts values back there.

They are from DeconvNet (Noh et al., "Learning Deconvolution Network for Semantic Segmentation", section 3.1) and are
also used by the decoupled method. The windows do not overlap. Pooling therefore selects an entry of each window, and
unpooling is a masked copy. Both and their gradients are one elementwise pass of comparisons and selections, without the
scatter and gather of flat indices that frameworks use, and a switch takes one byte.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
from einops import rearrange


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool_with_switches(x: jax.Array, window: int = 2) -> tuple[jax.Array, jax.Array]:
    """Maximum over non-overlapping windows, and its place in each window.

    The gradient goes to the entry at the switch, even if others are equal. A window with a NaN gives NaN.

    Args:
      x: floating [B, H, W, C]. H and W are multiples of `window`.
      window: side of the square windows, and their stride, 1 to 16.

    Returns:
      The maxima [B, H/window, W/window, C] in x's dtype, and the switches, uint8 of the same shape. A switch is
      row * window + column of the maximum inside its window, of the first one in this order if several are equal.

    Raises:
      ValueError: `window` or the shape of x is not as above.
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
        # All comparisons with a NaN are false, so a comparison alone would lose it.
        larger = (entry > pooled) | jnp.isnan(entry)
        pooled = jnp.where(larger, entry, pooled)
        switches = jnp.where(larger, jnp.uint8(row * window + column), switches)
    return pooled, switches


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def unpool(x: jax.Array, switches: jax.Array, window: int = 2) -> jax.Array:
    """Puts each value at the place of its switch in a window of zeros; the transpose of the pooling.

    Args:
      x: floating [B, h, w, C].
      switches: uint8 of the same shape, from `max_pool_with_switches` with the same `window`.
      window: 1 to 16.

    Returns:
      [B, window * h, window * w, C] in x's dtype. The gradient selects the entries at the switches.

    Raises:
      ValueError: `window`, or a shape or dtype, is not as above.
    """
    _check_window(window)
    if x.ndim != 4 or x.shape != switches.shape:
        raise ValueError(f"values have shape {x.shape}, switches {switches.shape}; expected equal shapes [B, h, w, C]")
    if switches.dtype != jnp.uint8:
        raise ValueError(f"switches are {switches.dtype}; expected uint8, as from max_pool_with_switches")
    spread = jnp.where(_at_switch(switches, window), x[:, :, None, :, None], jnp.zeros((), x.dtype))
    return rearrange(spread, "b h i w j c -> b (h i) (w j) c")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pick(x: jax.Array, switches: jax.Array, window: int) -> jax.Array:
    """Selects the entries at the switches, [B, H, W, C] -> [B, H/window, W/window, C]; the transpose of `unpool`."""
    windows = _windows(x, window)
    picked = windows[:, :, 0, :, 0]
    for row, column in itertools.islice(itertools.product(range(window), repeat=2), 1, None):
        picked = jnp.where(switches == row * window + column, windows[:, :, row, :, column], picked)
    return picked


def _windows(x: jax.Array, window: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/window, window, W/window, window, C]"""
    return rearrange(x, "b (h i) (w j) c -> b h i w j c", i=window, j=window)


def _at_switch(switches: jax.Array, window: int) -> jax.Array:
    """bool [B, h, window, w, window, C], True at one entry of each window."""
    places = jnp.arange(window * window, dtype=jnp.uint8).reshape(window, 1, window, 1)
    return switches[:, :, None, :, None] == places


def _check_window(window: int) -> None:
    if not 1 <= window <= 16:
        raise ValueError(f"pooling window is {window}; expected 1 to 16")


# The three maps are linear for given switches, and each other's transposes. The gradients are written out, so that the
# backward pass needs only the switches, one byte per window, and not a mask of all entries.


def _pool_forward(x: jax.Array, window: int) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    pooled, switches = max_pool_with_switches(x, window)
    return (pooled, switches), switches


max_pool_with_switches.defvjp(
    _pool_forward, lambda window, switches, cotangents: (unpool(cotangents[0], switches, window),)
)
unpool.defvjp(
    lambda x, switches, window: (unpool(x, switches, window), switches),
    lambda window, switches, cotangent: (_pick(cotangent, switches, window), None),
)
_pick.defvjp(
    lambda x, switches, window: (_pick(x, switches, window), switches),
    lambda window, switches, cotangent: (unpool(cotangent, switches, window), None),
)
