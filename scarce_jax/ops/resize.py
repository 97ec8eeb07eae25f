"""Bilinear resizing and adaptive averaging with PyTorch's conventions.

Where sizes are known at trace time, a resize is a product with a small constant matrix. On an accelerator that is
faster than a gather, and its gradient is a product too instead of a scatter. float32 products have full precision,
since a GPU would otherwise round their operands to TF32.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange


def on_image(canvas: tuple[int, int], height: jax.Array | int, width: jax.Array | int) -> jax.Array:
    """Which places of a canvas are of the image at its top left, bool [..., *canvas]; the others are padding.

    Args:
      canvas: (height, width) of the canvas.
      height, width: int [...], size of each image.
    """
    rows, columns = (jnp.asarray(length)[..., None, None] for length in (height, width))
    return (jnp.arange(canvas[0])[:, None] < rows) & (jnp.arange(canvas[1]) < columns)


def resize_bilinear(x: jax.Array, size: tuple[int, int], *, align_corners: bool) -> jax.Array:
    """Bilinear resize of a batch, equal to PyTorch's `interpolate(mode="bilinear")` (no antialiasing).

    Args:
      x: floating [B, h, w, C].
      size: (H, W) of the result.
      align_corners: True aligns the centres of the corner pixels. False aligns the outer edges, and coordinates beyond
        the centre of the first or last pixel take that pixel.

    Returns:
      [B, H, W, C] in x's dtype. Below float32 the weights are rounded to it, and sums accumulate in float32.
    """
    height, width = size
    # Columns first, so that the large result is written once, by a product whose rows are contiguous.
    if x.shape[2] != width:
        x = _product("Ww,bhwc->bhWc", bilinear_matrix(x.shape[2], width, align_corners), x)  # [B, h, W, C]
    if x.shape[1] != height:
        rows = jnp.asarray(bilinear_matrix(x.shape[1], height, align_corners))
        rows = jnp.broadcast_to(rows, (x.shape[0], *rows.shape))
        x = _product("bHh,bhn->bHn", rows, rearrange(x, "b h w c -> b h (w c)"))
        x = rearrange(x, "b h (w c) -> b h w c", w=width)  # [B, H, W, C]
    return x


def sample_nearest(labels: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Labels at the points of a coarser grid whose corners are the centres of the corner pixels.

    These are the places of `resize_bilinear(align_corners=True)`: from 321 to 41 it takes every eighth pixel.

    Args:
      labels: [B, H, W].
      size: (h, w) of the grid.

    Returns:
      [B, h, w] in the labels' dtype.
    """
    for axis, length in enumerate(size, start=1):
        if labels.shape[axis] != length:
            points = np.linspace(0, labels.shape[axis] - 1, length)
            labels = jnp.take(labels, np.floor(points + 0.5).astype(np.int32), axis=axis)
    return labels


def adaptive_average_pool(x: jax.Array, bins: int | tuple[int, int]) -> jax.Array:
    """Averages over a grid of bins that cover the image, equal to PyTorch's `adaptive_avg_pool2d`.

    Bin i of n over a length L has the entries floor(i * L / n) to ceil((i + 1) * L / n) - 1, so neighbouring bins may
    share an entry. L may be less than n.

    Args:
      x: floating [B, h, w, C].
      bins: (rows, columns) of the grid, or one number for both.

    Returns:
      [B, rows, columns, C] in x's dtype, summed in float32.
    """
    rows, columns = (bins, bins) if isinstance(bins, int) else bins
    over_height, over_width = bin_membership(x.shape[1], rows), bin_membership(x.shape[2], columns)
    # Zeros and ones are exact in all dtypes. The sums are divided by the number of entries afterwards.
    sums = _product("nh,bhwc->bnwc", over_height, x, result=jnp.float32)
    sums = _product("mw,bnwc->bnmc", over_width, sums)
    counts = over_height.sum(1)[:, None, None] * over_width.sum(1)[:, None]
    return (sums / counts).astype(x.dtype)


def class_fractions(labels: jax.Array, classes: int, size: tuple[int, int]) -> jax.Array:
    """Shares of the classes in the cells of a coarser grid: the adaptive average of the one-hot labels.

    Equal to `adaptive_average_pool(one_hot(labels), size)`, without the one-hot array at full resolution: the labels of
    each cell are gathered, and compared and counted in one fused reduction.

    Args:
      labels: integer [B, H, W]; a value outside 0..classes-1, such as 255 for void, belongs to no class.
      classes: K.
      size: (h, w) of the grid.

    Returns:
      float32 [B, h, w, K] in 0..1. The sum over the classes is the share of labelled pixels in the cell.
    """
    member_rows, rows_valid = _bin_members(labels.shape[1], size[0])  # [h, r]
    member_columns, columns_valid = _bin_members(labels.shape[2], size[1])  # [w, s]
    cells = jnp.take(labels, member_rows, axis=1, mode="clip")  # [B, h, r, W]
    cells = jnp.take(cells, member_columns, axis=3, mode="clip")  # [B, h, r, w, s]
    valid = rows_valid[:, :, None, None] & columns_valid  # [h, r, w, s]
    hits = (cells[..., None] == jnp.arange(classes, dtype=labels.dtype)) & valid[..., None]  # [B, h, r, w, s, K]
    counts = rows_valid.sum(1)[:, None, None] * columns_valid.sum(1)[:, None]
    return hits.sum((2, 4), dtype=jnp.int32) / jnp.asarray(counts, jnp.float32)


def resize_dynamic(
    x: jax.Array,
    src_height: jax.Array | int,
    src_width: jax.Array | int,
    dst_height: jax.Array | int,
    dst_width: jax.Array | int,
    canvas: tuple[int, int],
    first_row: jax.Array | int = 0,
    *,
    bicubic: bool = False,
) -> jax.Array:
    """Bilinear or bicubic resize of an image between the valid parts of two canvases; sizes are known only at run time.

    The outer edges are aligned, as in `resize_bilinear(align_corners=False)`. Coordinates are computed in exact integer
    arithmetic and the interpolation is elementwise, so the result of an image has the same bits alone and under `vmap`.

    Args:
      x: floating [h, w, C], valid in [:src_height, :src_width]. Other entries do not affect the result.
      src_height, src_width: integers >= 1.
      dst_height, dst_width: integers >= 0, at most the canvas. 2 * source * target must fit in int32, as it does for
        32,000 each.
      canvas: (H, W) of the result, static.
      first_row: integer >= 0, the row of the target at which the result begins, for a result that is made in bands.
      bicubic: Keys' kernel (1981) with parameter -0.5, as in MATLAB's `imresize`, but without antialiasing, and taps
        beyond the edges take the edge.

    Returns:
      [H, W, C] in x's dtype, interpolated in float32, so that bicubic values may leave the range of x; zero outside
      [:dst_height, :dst_width] of the target.
    """
    rows = first_row + jnp.arange(canvas[0], dtype=jnp.int32)
    columns = jnp.arange(canvas[1], dtype=jnp.int32)
    taps = _bicubic_taps if bicubic else _bilinear_taps
    y = x.astype(jnp.float32)
    y = sum(y[at] * weight[:, None, None] for at, weight in taps(src_height, dst_height, rows))  # [H, w, C]
    y = sum(y[:, at] * weight[:, None] for at, weight in taps(src_width, dst_width, columns))  # [H, W, C]
    inside = (rows < dst_height)[:, None] & (columns < dst_width)
    return jnp.where(inside[:, :, None], y, 0.0).astype(x.dtype)


Taps = list[tuple[jax.Array, jax.Array]]
"""Source entries [N] and their weights [N], of N target entries along one axis."""


def _place(source: jax.Array | int, target: jax.Array | int, entries: jax.Array, clip: bool) -> tuple[jax.Array, ...]:
    """The source entry before each of the target's `entries` [N], and the share of the way to the next one.

    Args:
      clip: move places before the centre of the first entry, or after that of the last, to that centre.
    """
    source, target = jnp.asarray(source, jnp.int32), jnp.maximum(jnp.asarray(target, jnp.int32), 1)
    # (i + 1/2) * source / target - 1/2, times the common denominator 2 * target.
    position = (2 * entries + 1) * source - target
    if clip:
        position = jnp.clip(position, 0, (source - 1) * 2 * target)
    low = position // (2 * target)
    return low, (position - low * 2 * target).astype(jnp.float32) / (2 * target).astype(jnp.float32)


def _bilinear_taps(source: jax.Array | int, target: jax.Array | int, entries: jax.Array) -> Taps:
    low, share = _place(source, target, entries, clip=True)
    return [(low, 1 - share), (jnp.minimum(low + 1, jnp.asarray(source, jnp.int32) - 1), share)]


def _bicubic_taps(source: jax.Array | int, target: jax.Array | int, entries: jax.Array) -> Taps:
    low, t = _place(source, target, entries, clip=False)
    weights = (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
    return [(jnp.clip(low + k - 1, 0, source - 1), weight) for k, weight in enumerate(weights)]


def _product(pattern: str, matrix: np.ndarray | jax.Array, x: jax.Array, result: jnp.dtype | None = None) -> jax.Array:
    matrix = jnp.asarray(matrix, x.dtype)
    return jnp.einsum(pattern, matrix, x, precision=jax.lax.Precision.HIGHEST, preferred_element_type=result or x.dtype)


@functools.cache
def bilinear_taps(source: int, target: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """The two source entries of each target entry of a bilinear resize.

    Returns:
      Two [target]: integers, the first entry (the second one is the next, or the last entry if there is no next), and
      float32 in 0..1, the weight of the second.
    """
    index = np.arange(target)
    if align_corners:
        position = index * ((source - 1) / max(target - 1, 1))
    else:
        position = np.clip((index + 0.5) * (source / target) - 0.5, 0, source - 1)
    low = np.clip(np.floor(position).astype(int), 0, max(source - 2, 0))
    return low, (position - low).astype(np.float32)


@functools.cache
def bilinear_matrix(source: int, target: int, align_corners: bool) -> np.ndarray:
    """float32 [target, source], whose rows are the weights of the one or two source entries of each target entry."""
    low, weight = bilinear_taps(source, target, align_corners)
    matrix = np.zeros((target, source), np.float32)
    matrix[np.arange(target), low] = 1 - weight
    matrix[np.arange(target), np.minimum(low + 1, source - 1)] += weight
    return matrix


@functools.cache
def _bin_members(length: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the entries of each adaptive bin, and whether they are valid: both [bins, r], r the largest size."""
    first = np.arange(bins) * length // bins
    last = -(-(np.arange(1, bins + 1) * length) // bins)
    index = first[:, None] + np.arange((last - first).max())
    return np.minimum(index, length - 1), index < last[:, None]


@functools.cache
def bin_membership(length: int, bins: int) -> np.ndarray:
    """float32 [bins, length], 1 for the entries of each adaptive bin."""
    index, valid = _bin_members(length, bins)
    matrix = np.zeros((bins, length), np.float32)
    np.add.at(matrix, (np.arange(bins)[:, None], index), valid)
    return matrix
