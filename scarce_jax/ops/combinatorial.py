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

MAX_LABELS = 20
"""Only the first so many labels of an image form subsets, since a uniform float32 in [0, 1) has 2^23 values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combinatorial:
    """Settings of the windows that are drawn from an image.

    The paper takes random windows and region proposals (EdgeBoxes) that enclose the foreground; all of ours are random.

    Attributes:
      crop: (height, width) in pixels to which windows are resized.
      windows: N_p, mean number of windows of each subset in one epoch (200 in section 6.1).
      enlarge: (smallest, largest) ratio, drawn uniformly, of a window's sides to those of the smallest window of the
        crop's proportions that encloses the foreground. The image limits it. The paper states no range.
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
    """Number of draws of each image in an epoch: `windows` for each of its 2^|L| - 1 subsets of labels."""

    windows: int

    def __call__(self, tags: np.ndarray) -> np.ndarray:
        """Draws float64 [N] for tags [N, K], 0 or 1; an image without a label is not drawn."""
        return self.windows * (2.0 ** np.minimum(tags.astype(bool).sum(axis=1), MAX_LABELS) - 1)


def choose_subset(position: jax.Array, present: jax.Array) -> jax.Array:
    """A non-empty subset of the classes in `present`; each subset has an equal part of the positions in [0, 1).

    Args:
      position: float32 [] in [0, 1).
      present: bool [K]; only the first 20 present classes count.

    Returns:
      bool [K]; all False where no class is present.
    """
    rank = jnp.cumsum(present) - 1
    count = jnp.minimum(present.sum(), MAX_LABELS)
    # Bit r of a number of 1 to 2^n - 1 says whether the class of rank r is in the subset.
    number = 1 + jnp.floor(position * (jnp.left_shift(1, count) - 1)).astype(jnp.int32)
    chosen = jnp.right_shift(number, jnp.minimum(rank, MAX_LABELS)) & 1 == 1
    return present & chosen & (rank < MAX_LABELS)


def crop_subset(
    row: dict[str, Any], key: jax.Array, config: Combinatorial, classes: int, background: int
) -> dict[str, Any]:
    """Draws a subset of a row's labels and a window around it; `vmap` it over rows and their keys.

    The labels are the classes of the row's mask, so that every subset has a foreground.

    Args:
      row: "image" uint8 [H, W, 3]; "label" uint8 [H, W]; "height" and "width" int32 [], the valid part
        [:height, :width] (the whole canvas where absent). Other entries are passed through.
      key: of this row. Equal keys give equal windows.
      config: static, settings of the windows.
      classes: static, K.
      background: class that is not a label.

    Returns:
      The row without "height" and "width"; "image" float32 [*crop, 3], normalised; "label" uint8 [*crop]: 1 in the
      subset, 0 elsewhere, 255 where the mask is; "subset" bool [K]. A mask without labels gives the whole image, all of
      it background, and an empty subset.

    Raises:
      ValueError: the mask is not of the image's size.
    """
    image, label = row["image"], row["label"]
    canvas = image.shape[:2]
    if label.shape != canvas:
        raise ValueError(f"label has shape {label.shape}; expected {canvas}, the image's")
    height, width = row.get("height", canvas[0]), row.get("width", canvas[1])
    # One call for all draws: compiling a generator call costs more than running it.
    drawn = jax.random.uniform(key, (5,))
    one_hot = label[..., None] == jnp.arange(classes, dtype=label.dtype)  # [H, W, K]; void beyond the valid part
    subset = choose_subset(drawn[4], one_hot.any((0, 1)) & (jnp.arange(classes) != background))
    figure = (subset & one_hot).any(-1)  # [H, W]
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
    """Index of the first True in bool [n], and one more than that of the last; 0 and `length` where none is."""
    n = marked.shape[0]
    first, end = jnp.argmax(marked), n - jnp.argmax(marked[::-1])
    return jnp.where(marked.any(), first, 0), jnp.where(marked.any(), end, length)


def _coordinates(
    position: jax.Array, extent: tuple[jax.Array, jax.Array], side: jax.Array, length: jax.Array, crop: int
) -> jax.Array:
    """Coordinates of a window's pixels along one axis of the image, pixel centres at integers: float32 [crop].

    Args:
      position: in [0, 1), the window's place among those at which it encloses the extent and stays in the image.
      extent: the indices to enclose, as of `_extent`.
      side: of the window, in pixels; cut to the image's `length`.
    """
    side = jnp.clip(side, extent[1] - extent[0], length)
    first, last = jnp.maximum(0, extent[1] - side), jnp.minimum(extent[0], length - side)
    return first + (last - first) * position + (jnp.arange(crop) + 0.5) * (side / crop) - 0.5
