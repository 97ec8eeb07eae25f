"""Bicubic resizing with PyTorch's conventions, as products with small constant matrices."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np


def resize_bicubic(x: jax.Array, size: tuple[int, int], *, antialias: bool) -> jax.Array:
    """Bicubic resize of a grid, equal to PyTorch's `interpolate(mode="bicubic", align_corners=False)`.

    Args:
      x: floating [h, w, C].
      size: (H, W) of the result.
      antialias: widen the kernel where the grid shrinks. The kernels differ also where it grows (see `bicubic_matrix`).

    Returns:
      float32 [H, W, C]; x itself where it has the size.
    """
    if x.shape[:2] == size:
        return x.astype(jnp.float32)
    rows, columns = (bicubic_matrix(*lengths, antialias) for lengths in zip(x.shape[:2], size, strict=True))
    return jnp.einsum("Hh,Ww,hwc->HWc", rows, columns, x.astype(jnp.float32), precision="highest")


@functools.cache
def bicubic_matrix(source: int, target: int, antialias: bool) -> np.ndarray:
    """Weights of the source entries in each target entry of a bicubic resize, float32 [target, source].

    Outer edges are aligned. Without `antialias` the parameter of Keys' kernel (1981) is -0.75, and taps beyond the
    ends take the first or last entry. With it the parameter is -0.5, the kernel is as wide as four target entries
    where the grid shrinks, and taps beyond the ends are left out.
    """
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale - 0.5
    matrix = np.zeros((target, source))
    if antialias:
        matrix = _kernel((np.arange(source) - centres[:, None]) / max(scale, 1), -0.5)
        return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
    for tap in range(-1, 3):
        entry = np.floor(centres).astype(int) + tap
        np.add.at(matrix, (np.arange(target), np.clip(entry, 0, source - 1)), _kernel(entry - centres, -0.75))
    return matrix.astype(np.float32)


def _kernel(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel with parameter `a`."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
