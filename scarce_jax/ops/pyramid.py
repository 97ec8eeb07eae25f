"""Averages of an image over several grids of bins, and a convolution of what is resized from such grids."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from scarce_jax.ops.resize import bilinear_matrix, bin_membership


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def pool_pyramid(x: jax.Array, bins: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """`adaptive_average_pool` of several sizes as one matrix product, which reads x once.

    Args:
      x: floating [B, h, w, C].
      bins: n of the n x n grids.

    Returns:
      [B, n, n, C] in x's dtype for each n, summed in float32.
    """
    members, counts = _pyramid(*x.shape[1:3], bins)
    sums = _pooled("nl,blc->bnc", members, rearrange(x, "b h w c -> b (h w) c"), jnp.float32)
    levels = jnp.split((sums / counts).astype(x.dtype), np.cumsum(np.square(bins))[:-1], axis=1)
    return tuple(rearrange(level, "b (n m) c -> b n m c", n=n) for level, n in zip(levels, bins, strict=True))


def _pool_backward(bins, size, cotangents):
    members, counts = _pyramid(*size, bins)
    sums = jnp.concatenate([rearrange(level, "b n m c -> b (n m) c") for level in cotangents], 1)
    dtype = sums.dtype
    x = _pooled("nl,bnc->blc", members, (sums.astype(jnp.float32) / counts).astype(dtype), dtype)
    return (rearrange(x, "b (h w) c -> b h w c", h=size[0]),)


pool_pyramid.defvjp(lambda x, bins: (pool_pyramid(x, bins), x.shape[1:3]), _pool_backward)


def _pooled(pattern: str, members: np.ndarray, x: jax.Array, result: jnp.dtype) -> jax.Array:
    members = jnp.asarray(members, x.dtype)  # Zeros and ones are exact in all dtypes.
    return jnp.einsum(pattern, members, x, precision=jax.lax.Precision.HIGHEST, preferred_element_type=result)


@functools.cache
def _pyramid(height: int, width: int, bins: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """0 or 1 for each place of each bin, [N, h * w] with N = sum n**2, and the numbers of places, [N, 1]: float32."""
    members = np.concatenate([np.kron(bin_membership(height, n), bin_membership(width, n)) for n in bins])
    return members, members.sum(1, keepdims=True)


def resized_convolution(grids: Sequence[jax.Array], kernels: Sequence[jax.Array], size: tuple[int, int]) -> jax.Array:
    """Sum over grids of the convolutions of their bilinear resizes, which are not computed.

    Both maps are linear and the resize is separable, so a grid is multiplied by all taps of its kernel first, and the
    products are resized, each shifted by its tap. A grid of 6 x 6 bins takes 6**2 * k**2 products of C x F in place of
    H * W * k**2.

    Args:
      grids: floating [B, n, n, C], resized to `size` with aligned corners; n and C may differ between grids.
      kernels: [k, k, C, F] for each grid, in the grids' dtype; k is odd. Beyond the border are zeros.
      size: (H, W).

    Returns:
      [B, H, W, F] in the grids' dtype.
    """
    width = []
    for grid, kernel in zip(grids, kernels, strict=True):
        products = jnp.einsum("bnmc,stcf->bnsmtf", grid, kernel)
        columns = jnp.asarray(_tapped_resize(grid.shape[2], size[1], kernel.shape[1]), grid.dtype)
        columns = jnp.einsum("wmt,bnsmtf->bnswf", columns, products, precision=jax.lax.Precision.HIGHEST)
        width.append(rearrange(columns, "b n s w f -> b (n s) (w f)"))
    rows = np.concatenate(
        [
            rearrange(_tapped_resize(grid.shape[1], size[0], len(kernel)), "h n s -> h (n s)")
            for grid, kernel in zip(grids, kernels, strict=True)
        ],
        1,
    )
    columns = jnp.concatenate(width, 1)
    rows = jnp.broadcast_to(jnp.asarray(rows, columns.dtype), (len(columns), *rows.shape))
    y = jnp.einsum("bhr,brn->bhn", rows, columns, precision=jax.lax.Precision.HIGHEST)
    return rearrange(y, "b h (w f) -> b h w f", w=size[1])


@functools.cache
def _tapped_resize(source: int, target: int, taps: int) -> np.ndarray:
    """[i, n, t] is the weight of source entry n in what tap t of a convolution reads at i: float32 [target, source, t].

    It is zero beyond the ends of the target.
    """
    pad = taps // 2
    matrix = np.pad(bilinear_matrix(source, target, True), ((pad, pad), (0, 0)))
    return np.stack([matrix[tap : tap + target] for tap in range(taps)], -1)
