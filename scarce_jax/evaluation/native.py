"""Scores at the native size of images, where they are compared with the truth, and their refinement with a CRF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax import memory
from scarce_jax.ops.crf import dense_crf
from scarce_jax.ops.resize import on_image, resize_dynamic
from scarce_jax.recipe import Views

SIZES = ("height", "width")
NATIVE = ("native_height", "native_width")
CANVAS_STEP = 128

BAND_BYTES = 64 << 20
"""Most bytes of native scores that a device computes at a time; what is computed from them takes a few times that."""


def native_canvas(height: int, width: int) -> tuple[int, int]:
    """Returns the canvas of an image of this size. There are few canvases, so that few programs are compiled.

    Its sides are multiples of 128 up to 512, of 256 up to 1024, of 512 up to 2048 and so on.
    """

    def side(length: int) -> int:
        step = CANVAS_STEP
        while length > 4 * step:
            step *= 2
        return -(-length // step) * step

    return side(height), side(width)


def native_row(image: np.ndarray, views: Views) -> dict[str, np.ndarray]:
    """Makes the part of a row at native size: `native_height`, `native_width`, and for a CRF `native_image`.

    Args:
      image: uint8 [H, W, 3].
      views: the views to predict, perhaps with a CRF.
    """
    height, width = image.shape[:2]
    row = {"native_height": np.int32(height), "native_width": np.int32(width)}
    if views.crf is not None:
        canvas = native_canvas(height, width)
        row["native_image"] = np.pad(image, ((0, canvas[0] - height), (0, canvas[1] - width), (0, 0)))
    return row


def merge(
    scores: tuple[jax.Array, ...],
    rows: Mapping[str, jax.Array],
    canvas: tuple[int, int],
    target: tuple[str, str],
    first_row: jax.Array | int = 0,
    interpolation: str | None = None,
) -> jax.Array:
    """Resizes the scores of every scale to the target size, and averages them: [B, *canvas, K].

    Args:
      scores: the result of `Scorer`.
      rows: the batch.
      canvas: (height, width) of the result.
      target: names of the rows' fields with the valid height and width of the result.
      first_row: the row of the target at which the result begins.
      interpolation: "bicubic", or bilinear.
    """
    total = 0.0
    for k, score in enumerate(scores):
        height, width = (f"{k}/{name}" for name in SIZES)
        total += resized(score, rows, (height, width), target, canvas, first_row, interpolation == "bicubic")
    return total / len(scores)


def bands(images: int, canvas: tuple[int, int], classes: int, views: Views) -> tuple[int, list[int]]:
    """Cuts a native canvas into bands of rows, whose scores take little memory.

    The scores of a whole photograph are large: 4 GB at 48 megapixels with 21 classes. A CRF needs them all at once.

    Args:
      images: per device.
      canvas: (height, width).
      classes: K.
      views: the views that are predicted, perhaps with a CRF.

    Returns:
      The height of a band, and the first row of each. There is one band if its scores fit in `BAND_BYTES`.

    Raises:
      InputError: a CRF takes more memory than there is.
    """
    if views.crf is not None:
        # `mean_field` states the factors; the images of a batch are refined one after the other.
        needed = 4 * canvas[0] * canvas[1] * (6 * (classes + 30) + images * classes)
        what = f"a CRF on {canvas[1]} x {canvas[0]} pixels with {classes} classes"
        memory.check(needed, what, "make the image smaller, or leave out the CRF", jax.local_devices()[0])
    height, row_bytes = canvas[0], 4 * images * canvas[1] * classes
    while views.crf is None and height * row_bytes > BAND_BYTES and height % 2 == 0:
        height //= 2
    return height, list(range(0, canvas[0], height))


def rows_of_band(native: jax.Array, first_row: jax.Array | int, height: int) -> jax.Array:
    """Selects the rows of a band from an array on the native canvas: [B, H, W] to [B, height, W]."""
    return jax.lax.dynamic_slice_in_dim(native, first_row, height, axis=1)


def are_logits(views: Views, interpolation: str | None) -> bool:
    """Whether scores are logits rather than class probabilities, before any CRF."""
    return views.average == "logits" or (views.plain and interpolation is None)


def native_scores(
    views: Views,
    scores: tuple[jax.Array, ...],
    rows: Mapping[str, jax.Array],
    canvas: tuple[int, int],
    first_row: jax.Array | int = 0,
    interpolation: str | None = None,
) -> jax.Array:
    """Merges the scores at native size, and refines them if the views have a CRF: [B, *canvas, K].

    The scores of a pixel have the same bits whichever band they are computed in, if the band is a program of its own:
    inside a loop of one program, XLA's CPU backend rounds them otherwise.

    Args:
      views: the views that were predicted, perhaps with a CRF.
      scores: the result of `Scorer`.
      rows: the batch.
      canvas: the native canvas of the batch; or (height, width) of a band of it, if there is no CRF.
      first_row: the row of the native canvas at which the band begins.
      interpolation: as in `Source`.
    """
    merged = merge(scores, rows, canvas, NATIVE, first_row, interpolation)
    if interpolation == "bicubic" and not are_logits(views, interpolation):
        # The kernel has negative weights.
        merged = jnp.maximum(merged, 0)
        merged /= jnp.maximum(merged.sum(-1, keepdims=True), 1e-6)
    if views.crf is None:
        return merged
    if views.average == "logits":
        merged = jax.nn.softmax(merged)
    valid = on_image(canvas, *(rows[name] for name in NATIVE))  # [B, *canvas]

    def refine(row: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return dense_crf(*(x[None] for x in row[:2]), views.crf, row[2][None])[0]

    # One image at a time, because the lattice of an image takes more memory than its scores.
    return jax.lax.map(refine, (merged, rows["native_image"], valid))


def resized(
    scores: jax.Array,
    rows: Mapping[str, jax.Array],
    source: tuple[str, str],
    target: tuple[str, str],
    canvas: Any,
    first_row: jax.Array | int = 0,
    bicubic: bool = False,
) -> jax.Array:
    """Resizes scores [B, h, w, K] from one valid size to another, on a canvas: [B, *canvas, K].

    Args:
      scores: float [B, h, w, K].
      rows: the batch.
      source: names of the rows' fields with the valid heights and widths of the scores.
      target: the same of the result.
      canvas: (height, width) of the result.
      first_row: the row of the target at which the result begins.
      bicubic: instead of bilinear.
    """
    sizes = [rows[name] for name in (*source, *target)]
    return jax.vmap(lambda x, *four: resize_dynamic(x, *four, canvas, first_row, bicubic=bicubic))(scores, *sizes)
