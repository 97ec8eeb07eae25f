"""Maximum over windows that may overlap, with a written-out gradient."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
from einops import rearrange

Padding = tuple[tuple[int, int], tuple[int, int]]

NONE = 255
"""A place that no window has."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, window: int, stride: int, padding: Padding) -> jax.Array:
    """Maximum over square windows.

    The gradient goes to the first of equal maxima in row-major order, as in PyTorch. For it one byte is kept per
    window, the place of its maximum, and each pixel selects the gradients of the windows that may have it as their
    maximum. Forward and backward, 3 x 3 windows at stride 2 over bfloat16 [30, 321, 321, 64] move 1.09 GB in the
    program that XLA compiles for an H100. Maxima of shifted slices move 4.27 GB, since their derived gradient keeps
    every comparison. On an H200 the slices took 1.17 ms, `lax.reduce_window` 2.15 ms, and an earlier form with a byte a
    window 1.40 ms (benchmarks/results/gpu); this form was not timed on a GPU.

    Args:
      x: floating [B, H, W, C].
      window, stride: side, at most 15, and step of the windows, in pixels.
      padding: ((top, bottom), (left, right)), padded with -inf. Less than `window`.

    Returns:
      [B, H', W', C] with H' = (H + top + bottom - window) // stride + 1, and W' likewise. A window with a NaN gives
      NaN.
    """
    return _with_places(x, window, stride, padding)[0]


def _with_places(x: jax.Array, window: int, stride: int, padding: Padding) -> tuple[jax.Array, jax.Array]:
    """The maxima, and the place row * window + column of each in its window: uint8 of the same shape."""
    if any(map(any, padding)):
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    ends = [(length - window) // stride * stride + 1 for length in x.shape[1:3]]
    largest = places = None
    for place, (row, column) in enumerate(itertools.product(range(window), repeat=2)):
        entry = x[:, row : row + ends[0] : stride, column : column + ends[1] : stride]
        if largest is None:
            largest, places = entry, jnp.zeros(entry.shape, jnp.uint8)
            continue
        # All comparisons with a NaN are false, so a comparison alone would lose it.
        larger = (entry > largest) | jnp.isnan(entry)
        largest = jnp.where(larger, entry, largest)
        places = jnp.where(larger, jnp.uint8(place), places)
    return largest, places


def _forward(x: jax.Array, window: int, stride: int, padding: Padding) -> tuple[jax.Array, tuple]:
    largest, places = _with_places(x, window, stride, padding)
    # The empty array tells the size of the image.
    return largest, (places, jnp.zeros((0, *x.shape[1:3]), jnp.bool_))


def _gradient(window: int, stride: int, padding: Padding, kept: tuple, cotangent: jax.Array) -> tuple[jax.Array]:
    places, image = kept
    # Pixels stride * q + phase are the maxima of windows q + shift alone, at one offset in each of these windows.
    taps = [_taps(window, stride, low) for low, _ in padding]
    numbers = [-(-length // stride) for length in image.shape[1:]]
    margins = []
    for along, number, windows in zip(taps, numbers, cotangent.shape[1:3], strict=True):
        shifts = [shift for phase in along for _, shift in phase]
        margins.append((max(0, -min(shifts)), max(0, number + max(shifts) - windows)))
    margin = ((0, 0), *margins, (0, 0))
    places, cotangent = jnp.pad(places, margin, constant_values=NONE), jnp.pad(cotangent, margin)
    (top, _), (left, _) = margins

    def of_phase(rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> jax.Array:
        total = jnp.zeros((), cotangent.dtype)
        for (row, down), (column, right) in itertools.product(rows, columns):
            windows = (
                slice(None),
                slice(top + down, top + down + numbers[0]),
                slice(left + right, left + right + numbers[1]),
            )
            total += jnp.where(places[windows] == row * window + column, cotangent[windows], 0)
        return jnp.broadcast_to(total, (len(cotangent), *numbers, cotangent.shape[-1]))

    phases = [of_phase(rows, columns) for rows, columns in itertools.product(*taps)]
    gradient = rearrange(phases, "(i j) b h w c -> b (h i) (w j) c", i=stride)
    return (gradient[:, : image.shape[1], : image.shape[2]],)


def _taps(window: int, stride: int, low: int) -> list[list[tuple[int, int]]]:
    """For each phase, the (offset in the window, shift of the window) of all windows that have its pixels."""
    return [
        [(offset, (phase + low - offset) // stride) for offset in range(window) if not (phase + low - offset) % stride]
        for phase in range(stride)
    ]


max_pool.defvjp(_forward, _gradient)
