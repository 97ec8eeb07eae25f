"""Combinatorial cropping: many figure-ground examples from one image with a mask, inside the compiled step.

Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation", section 5. For each
non-empty subset of an image's labels there are windows that enclose its pixels. These pixels are the foreground, all
others the background.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval
from einops import rearrange

from scarce_jax.data.schema import IGNORE
from scarce_jax.ops.augment import flat_index, normalise, sample_bilinear
from scarce_jax.ranges import Count, Pixels, Share

MAX_LABELS = 20
"""Number of labels of an image that form subsets. A uniform float32 in [0, 1) has only 2^23 values."""

Enlargement = Annotated[float, Interval(ge=1, le=1000)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combinatorial:
    """Settings of the windows that are drawn from an image.

    The paper uses random windows and region proposals (EdgeBoxes) that enclose the foreground. Here all are random.

    Attributes:
      crop: (height, width) in pixels of the result.
      resized: (height, width) to which windows are resized, and from which the crop is cut at a random place; at least
        the crop. The authors resize to 350 x 350, and cut 320 x 320, so that some objects are cut too. None resizes to
        the crop.
      windows: N_p, mean number of windows of each subset in an epoch. 200 in section 6.1.
      enlarge: (smallest, largest) size of a window, drawn uniformly, relative to the smallest window of the crop's
        aspect ratio that encloses the foreground. The paper does not specify a range.
      beyond: windows may extend beyond the image, where they are padded with the mean colour and void, as the authors
        pad theirs with black. Otherwise the image limits them, and those that are cut change their aspect ratio.
      flip: probability of a horizontal flip.
    """

    crop: tuple[Pixels, Pixels]
    resized: tuple[Pixels, Pixels] | None = None
    windows: Count = 200
    enlarge: tuple[Enlargement, Enlargement] = (1.0, 3.0)
    beyond: bool = False
    flip: Share = 0.5

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.enlarge[0] > self.enlarge[1]:
            yield "enlarge", "the smallest factor before the largest"
        if self.resized is not None and any(side < cut for side, cut in zip(self.resized, self.crop, strict=True)):
            yield "resized", f"at least the crop, {self.crop[0]} {self.crop[1]}"


@dataclasses.dataclass(frozen=True)
class SubsetDraws:
    """Number of draws of each image in an epoch: `windows` for each non-empty subset of its labels."""

    windows: int

    def __call__(self, tags: np.ndarray) -> np.ndarray:
        """Tags [N, K], 0 or 1 -> draws float64 [N]; an image without labels is not drawn."""
        return self.windows * (2.0 ** np.minimum(tags.astype(bool).sum(axis=1), MAX_LABELS) - 1)


def choose_subset(position: jax.Array, present: jax.Array) -> jax.Array:
    """A non-empty subset of the present classes. All subsets are equally likely for a uniform `position`.

    Args:
      position: float32 [] in [0, 1).
      present: bool [K]; only the first 20 present classes count.

    Returns:
      bool [K], all False if no class is present.
    """
    rank = jnp.cumsum(present) - 1
    count = jnp.minimum(present.sum(), MAX_LABELS)
    # Bit r of a number in 1..2^n - 1 decides whether the class of rank r is in the subset.
    number = 1 + jnp.floor(position * (jnp.left_shift(1, count) - 1)).astype(jnp.int32)
    chosen = jnp.right_shift(number, jnp.minimum(rank, MAX_LABELS)) & 1 == 1
    return present & chosen & (rank < MAX_LABELS)


def crop_subset(
    row: dict[str, Any], key: jax.Array, config: Combinatorial, classes: int, background: int
) -> dict[str, Any]:
    """Draws a subset of a row's labels and a window around it. Use `vmap` for a batch of rows and keys.

    The labels are the classes of the row's mask, so that each subset has a foreground.

    Args:
      row: "image" uint8 [H, W, 3]; "label" uint8 [H, W]; "height" and "width" int32 [], the size of the valid part in
        the upper left corner (default: the whole canvas). Other entries are passed through.
      key: random key. Equal keys give equal windows.
      config: static, settings of the windows.
      classes: static, K.
      background: id of the class that is not a label.

    Returns:
      The row without "height" and "width". "image" is float32 [*crop, 3], normalised. "label" is uint8 [*crop]: 1 in
      the subset, 0 elsewhere, and 255 for void. "subset" is bool [K]. A mask without labels gives the whole image (with
      `beyond`, a window around it), as background, and an empty subset.

    Raises:
      ValueError: the size of the mask is not that of the image.
    """
    image, label = row["image"], row["label"]
    canvas = image.shape[:2]
    if label.shape != canvas:
        raise ValueError(f"label has shape {label.shape}; expected {canvas}, as the image")
    height, width = row.get("height", canvas[0]), row.get("width", canvas[1])
    # One call for all draws, because compiling a call costs more than running it.
    drawn = jax.random.uniform(key, (5,))
    one_hot = label[..., None] == jnp.arange(classes, dtype=label.dtype)  # [H, W, K]
    subset = choose_subset(drawn[4], one_hot.any((0, 1)) & (jnp.arange(classes) != background))
    figure = (subset & one_hot).any(-1)  # [H, W]
    smallest, largest = config.enlarge
    factor = smallest + (largest - smallest) * drawn[0]
    rows, columns = _extent(figure.any(1), height), _extent(figure.any(0), width)
    # The unit is the resized window, so that one number is the size of the smallest window of its aspect ratio.
    frame, cut = config.resized or config.crop, (0, 0)
    unit = jnp.maximum((rows[1] - rows[0]) / frame[0], (columns[1] - columns[0]) / frame[1]) * factor
    if frame != config.crop:
        spare = jnp.array(frame) - jnp.array(config.crop)
        cut = jax.random.randint(jax.random.fold_in(key, 1), (2,), 0, spare + 1)
    limits = (None, None) if config.beyond else (height, width)
    first, side = _window(drawn[1], rows, unit * frame[0], limits[0])
    y = first + (cut[0] + jnp.arange(config.crop[0]) + 0.5) * (side / frame[0]) - 0.5
    first, side = _window(drawn[2], columns, unit * frame[1], limits[1])
    x = first + (cut[1] + jnp.arange(config.crop[1]) + 0.5) * (side / frame[1]) - 0.5
    x = jnp.where(drawn[3] < config.flip, x[::-1], x)
    y, x = (jnp.broadcast_to(axis, config.crop) for axis in (y[:, None], x[None, :]))
    row_index, column_index = (jnp.floor(axis + 0.5).astype(jnp.int32) for axis in (y, x))
    nearest = flat_index(row_index, column_index, height, width, canvas)
    target = jnp.where(label == IGNORE, jnp.uint8(IGNORE), figure.astype(jnp.uint8))
    fields = {name: value for name, value in row.items() if name not in ("height", "width")}
    pixels = normalise(sample_bilinear(image, y, x, height, width))
    mask = rearrange(target, "h w -> (h w)")[nearest]
    if config.beyond:
        inside = (row_index >= 0) & (row_index < height) & (column_index >= 0) & (column_index < width)
        pixels, mask = jnp.where(inside[..., None], pixels, 0.0), jnp.where(inside, mask, jnp.uint8(IGNORE))
    return fields | {"image": pixels, "label": mask, "subset": subset}


def _extent(marked: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Indices of the first True in bool [n] and after the last one; 0 and `length` if there is none."""
    n = marked.shape[0]
    first, end = jnp.argmax(marked), n - jnp.argmax(marked[::-1])
    return jnp.where(marked.any(), first, 0), jnp.where(marked.any(), end, length)


def _window(
    position: jax.Array, extent: tuple[jax.Array, jax.Array], side: jax.Array, limit: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The first index of a window along one axis of the image, and its length, two float32 [].

    Args:
      position: float32 [] in [0, 1), which selects one of the places where the window encloses the extent.
      extent: indices to enclose (see `_extent`).
      side: length of the window in pixels.
      limit: length of the image, to which the window is cut, and within which it stays; None sets no limit.
    """
    side = jnp.clip(side, extent[1] - extent[0], limit)
    first, last = extent[1] - side, extent[0]
    if limit is not None:
        first, last = jnp.maximum(0, first), jnp.minimum(last, limit - side)
    return first + (last - first) * position, side
