"""Combinatorial cropping: from one image with a mask many figure-ground examples, drawn inside the compiled step.

"Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation", section 5: for every non-empty subset of an
image's labels, windows that enclose the pixels of these labels; those are the foreground, all others the background.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError
from scarce_jax.ops.augment import flat_index, normalise, sample_bilinear

MOST = 20
"""Labels of an image that subsets are drawn of, the first ones: a uniform float32 tells apart 2^23 of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combinatorial:
    """What is drawn of an image.

    The windows of the paper are random ones and region proposals (EdgeBoxes) that enclose the foreground; all of ours
    are random.

    Attributes:
      crop: (height, width) in pixels to which windows are brought.
      windows: N_p, windows of each subset in one epoch, in the mean (200 in section 6.1).
      enlarge: range of the uniformly drawn factor by which the sides of a window exceed those of the smallest one of
        the crop's proportions that encloses the foreground, as far as the image goes. The paper does not say.
      flip: probability of a horizontal flip.
    """

    crop: tuple[int, int]
    windows: int = 200
    enlarge: tuple[float, float] = (1.0, 3.0)
    flip: float = 0.5

    def __post_init__(self):
        if min(self.crop) < 1 or self.windows < 1:
            raise InputError(f"crop is {self.crop}, windows {self.windows}; expected at least 1")
        if not 1 <= self.enlarge[0] <= self.enlarge[1]:
            raise InputError(f"enlarge is {self.enlarge}; expected (smallest, largest) factor, both at least 1")
        if not 0 <= self.flip <= 1:
            raise InputError(f"flip is {self.flip}; expected 0 to 1")


@dataclasses.dataclass(frozen=True)
class SubsetDraws:
    """How often an epoch draws each image: `windows` times for each of the 2^|L| - 1 subsets of its labels."""

    windows: int

    def __call__(self, tags: np.ndarray) -> np.ndarray:
        """Draws float64 [N] for tags [N, K], 0 or 1; an image without a label is not drawn."""
        return self.windows * (2.0 ** np.minimum(tags.astype(bool).sum(axis=1), MOST) - 1)


def choose_subset(position: jax.Array, present: jax.Array) -> jax.Array:
    """One of the non-empty subsets of the classes in `present`, of which each has an equal part of [0, 1).

    Args:
      position: float32 [] in [0, 1).
      present: bool [K]; of more than 20 the first 20 count.

    Returns:
      bool [K]; none where none is present.
    """
    rank = jnp.cumsum(present) - 1
    count = jnp.minimum(present.sum(), MOST)
    # Bit r of a number of 1 to 2^n - 1 says whether the class of rank r is in the subset.
    number = 1 + jnp.floor(position * (jnp.left_shift(1, count) - 1)).astype(jnp.int32)
    chosen = jnp.right_shift(number, jnp.minimum(rank, MOST)) & 1 == 1
    return present & chosen & (rank < MOST)


def crop_subset(
    row: dict[str, Any], key: jax.Array, config: Combinatorial, classes: int, background: int
) -> dict[str, Any]:
    """Draws a subset of a row's labels and a window around it; `vmap` it over rows and their keys.

    The labels are the classes of the row's mask, so that every subset has a foreground.

    Args:
      row: "image" uint8 [H, W, 3]; "label" uint8 [H, W]; "height" and "width" int32 [], the valid part
        [:height, :width] (the whole canvas where absent). Other entries are passed through.
      key: of this row. Equal keys give equal windows.
      config: what to draw; static.
      classes: K.
      background: class that is no label.

    Returns:
      The row without "height" and "width"; "image" float32 [*crop, 3], normalised; "label" uint8 [*crop]: 1 in the
      subset, 0 elsewhere, 255 where the mask is; "subset" bool [K]. Of a mask without labels the whole image, all of it
      background, and an empty subset.
    """
    image, label = row["image"], row["label"]
    canvas = image.shape[:2]
    if label.shape != canvas:
        raise ValueError(f"label has shape {label.shape}; expected {canvas}, the image's")
    height, width = row.get("height", canvas[0]), row.get("width", canvas[1])
    # One call for all draws: compiling a generator call costs more than running it.
    drawn = jax.random.uniform(key, (5,))
    # What is beyond the valid part is void.
    has = (label[..., None] == jnp.arange(classes, dtype=label.dtype)).any((0, 1))
    subset = choose_subset(drawn[4], has & (jnp.arange(classes) != background))
    figure = (subset & (label[..., None] == jnp.arange(classes, dtype=label.dtype))).any(-1)
    smallest, largest = config.enlarge
    factor = smallest + (largest - smallest) * drawn[0]
    rows, columns = _extent(figure.any(1), height), _extent(figure.any(0), width)
    # In units of the crop, so that one number says how large the smallest window of its proportions is.
    unit = jnp.maximum((rows[1] - rows[0]) / config.crop[0], (columns[1] - columns[0]) / config.crop[1]) * factor
    y = _coordinates(drawn[1], rows, unit * config.crop[0], height, config.crop[0])
    x = _coordinates(drawn[2], columns, unit * config.crop[1], width, config.crop[1])
    x = jnp.where(drawn[3] < config.flip, x[::-1], x)
    y, x = (jnp.broadcast_to(axis, config.crop) for axis in (y[:, None], x[None, :]))
    row_index, column_index = (jnp.floor(axis + 0.5).astype(jnp.int32) for axis in (y, x))
    nearest = flat_index(row_index, column_index, height, width, canvas)
    target = jnp.where(label == IGNORE, jnp.uint8(IGNORE), figure.astype(jnp.uint8))
    fields = {name: value for name, value in row.items() if name not in ("height", "width")}
    return fields | {
        "image": normalise(sample_bilinear(image, y, x, height, width)),
        "label": rearrange(target, "h w -> (h w)")[nearest],
        "subset": subset,
    }


def _extent(marked: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First place, and the one after the last, where bool [n] is true; 0 and `length` where it is nowhere."""
    n = marked.shape[0]
    first, end = jnp.argmax(marked), n - jnp.argmax(marked[::-1])
    return jnp.where(marked.any(), first, 0), jnp.where(marked.any(), end, length)


def _coordinates(
    position: jax.Array, extent: tuple[jax.Array, jax.Array], side: jax.Array, length: jax.Array, crop: int
) -> jax.Array:
    """float32 [crop]: where a window's pixels are along one axis of the image (pixel centres at integers).

    The window has this side, or the image's length where that is less; `position` in [0, 1) says where it is among the
    places at which it encloses the extent and stays in the image.
    """
    side = jnp.clip(side, extent[1] - extent[0], length)
    first, last = jnp.maximum(0, extent[1] - side), jnp.minimum(extent[0], length - side)
    return first + (last - first) * position + (jnp.arange(crop) + 0.5) * (side / crop) - 0.5
