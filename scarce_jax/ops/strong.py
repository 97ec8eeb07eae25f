"""Strong augmentation of an image that is already augmented: colours, blur, and CutMix between the images of a batch.

Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (UniMatch, CVPR 2023). No
pixel changes its place, so that a label of the weakly augmented image is one of the strong view.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
from annotated_types import Interval

from scarce_jax.data.schema import IGNORE
from scarce_jax.ops.augment import Augment, augment, denormalise, grey, jitter, normalise
from scarce_jax.ranges import Share

Rows = TypeVar("Rows")
Turn = Annotated[float, Interval(ge=0, le=0.5)]
Sigma = Annotated[float, Interval(gt=0, le=10)]

RATIO = 0.3
"""Smallest height of a CutMix box relative to its width; the largest is 1 / RATIO."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strong:
    """Ranges of the strong augmentation; the defaults are those of UniMatch. All draws of a view are independent.

    Attributes:
      brightness, contrast, saturation: v draws a factor uniformly in 1 - v..1 + v.
      hue: largest turn of the hue, as a share of the circle of colours, drawn uniformly in -hue..hue.
      jitter: probability of these four changes. They are made in this order; torchvision's ColorJitter shuffles them.
      grey: probability of an image without colours.
      blur: probability of a Gaussian blur.
      sigma: (smallest, largest) standard deviation of the blur in pixels, drawn uniformly.
      cutmix: probability that a box of the image is another image of the batch.
      area: (smallest, largest) area of the box as a share of the image's, drawn uniformly.
    """

    brightness: Share = 0.5
    contrast: Share = 0.5
    saturation: Share = 0.5
    hue: Turn = 0.25
    jitter: Share = 0.8
    grey: Share = 0.2
    blur: Share = 0.5
    sigma: tuple[Sigma, Sigma] = (0.1, 2.0)
    cutmix: Share = 0.5
    area: tuple[Share, Share] = (0.02, 0.4)

    def faults(self) -> Iterator[tuple[str, str]]:
        for name in ("sigma", "area"):
            smallest, largest = getattr(self, name)
            if smallest > largest:
                yield name, "the smallest value before the largest"


def strong_colours(image: jax.Array, inside: jax.Array, key: jax.Array, config: Strong) -> jax.Array:
    """Changes the colours of one image at random, and blurs it. Use `vmap` for several.

    Args:
      image: float [h, w, 3], normalised (`augment.normalise`).
      inside: bool [h, w], True for pixels of the image, False for padding.
      key: random key.
      config: static, the ranges.

    Returns:
      float32 [h, w, 3], normalised, and 0 outside.
    """
    drawn = jax.random.uniform(key, (8,))
    pixels = denormalise(image)
    changed = jitter(pixels, inside, drawn[:3], (config.brightness, config.contrast, config.saturation))
    if config.hue:
        changed = turn_hue(changed, config.hue * (2 * drawn[3] - 1))
    pixels = jnp.where(drawn[4] < config.jitter, changed, pixels)
    pixels = jnp.where(drawn[5] < config.grey, grey(pixels), pixels)
    if config.blur:
        smallest, largest = config.sigma
        blurred = gaussian_blur(pixels, smallest + (largest - smallest) * drawn[7])
        pixels = jnp.where(drawn[6] < config.blur, blurred, pixels)
    return jnp.where(inside[..., None], normalise(pixels), 0.0)


def turn_hue(pixels: jax.Array, turn: jax.Array | float) -> jax.Array:
    """Turns the hue of RGB pixels by a share of the circle of colours; value and saturation (HSV) stay.

    Args:
      pixels: floating [..., 3], at least 0. Grey stays grey.
      turn: scalar; 1/3 makes red green.

    Returns:
      [..., 3] in the same unit.
    """
    red, green, blue = (pixels[..., i] for i in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    divisor = jnp.where(chroma > 0, chroma, 1)
    second = jnp.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    hue = jnp.where(value == red, (green - blue) / divisor, second) + 6 * turn  # In sixths of the circle.

    def channel(start: int) -> jax.Array:
        sector = (start + hue) % 6
        return value - chroma * jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], -1)


def gaussian_blur(image: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """Gaussian blur of floating [H, W, C]. At an edge it is the mean of the pixels there are.

    Args:
      sigma: scalar above 0, standard deviation in pixels.
    """

    def window(length: int) -> jax.Array:
        distance = jnp.arange(length)[:, None] - jnp.arange(length)
        weights = jnp.exp(-0.5 * (distance / sigma) ** 2)
        return weights / weights.sum(1, keepdims=True)

    # Two products of matrices: as many shifted sums as a window has pixels take long to compile.
    height, width = image.shape[:2]
    blurred = jnp.einsum("ih,hwc->iwc", window(height), image, precision="highest")
    return jnp.einsum("jw,iwc->ijc", window(width), blurred, precision="highest")


def cutmix_box(key: jax.Array, size: tuple[int, int], config: Strong) -> jax.Array:
    """Draws a box for CutMix (Yun et al., 2019): int32 [4], its first and its end row, its first and its end column.

    With probability 1 - `config.cutmix` the box is empty. Otherwise its area is drawn uniformly, then height / width
    uniformly in RATIO..1 / RATIO (or the nearest ratio that fits into the image), then one of the possible places.
    UniMatch draws ratio and place again until they fit, so that less extreme ratios are more frequent.

    Args:
      size: static, (H, W) of the image.
    """
    height, width = size
    drawn = jax.random.uniform(key, (5,))
    area = height * width * (config.area[0] + (config.area[1] - config.area[0]) * drawn[1])
    ratio = jnp.clip(RATIO + (1 / RATIO - RATIO) * drawn[2], area / width**2, height**2 / jnp.maximum(area, 1e-6))
    rows = jnp.minimum(jnp.floor(jnp.sqrt(area * ratio)), height)
    columns = jnp.minimum(jnp.floor(jnp.sqrt(area / ratio)), width)
    top, left = jnp.floor(drawn[3] * (height - rows + 1)), jnp.floor(drawn[4] * (width - columns + 1))
    box = jnp.stack([top, top + rows, left, left + columns]).astype(jnp.int32)
    return jnp.where(drawn[0] < config.cutmix, box, 0)


def cutmix(rows: Rows, boxes: jax.Array) -> Rows:
    """Replaces a box of each row by the same box of the row before it; the first row gets that of the last one.

    On several devices that moves one row from each of them to the next, and the result is the same on any number.

    Args:
      rows: arrays [B, H, W, ...], such as images and their labels, which are mixed alike.
      boxes: int32 [B, 4] (`cutmix_box`).

    Returns:
      Arrays like `rows`.
    """

    def mix(array: jax.Array) -> jax.Array:
        down, right = (jnp.arange(length)[None] for length in array.shape[1:3])
        top, bottom, left, end = (boxes[:, i, None] for i in range(4))
        inside = ((down >= top) & (down < bottom))[:, :, None] & ((right >= left) & (right < end))[:, None]
        inside = inside.reshape(*inside.shape, *(1 for _ in array.shape[3:]))
        return jnp.where(inside, jnp.roll(array, 1, 0), array)

    return jax.tree.map(mix, rows)


def strong_views(row: dict[str, Any], key: jax.Array, weak: Augment, config: Strong, views: int) -> dict[str, Any]:
    """A weakly augmented image and strong views of it, which CutMix has yet to mix.

    Args:
      row: an image without labels, as for `augment`.
      key: random key. The weak augmentation is that of `augment` with the same key.
      weak, config, views: static, the ranges of both augmentations, and the number of strong views.

    Returns:
      The row with "image" float32 [*crop, 3], "strong" float32 [views, *crop, 3], both normalised, "inside" bool
      [*crop], False in the padding, and "boxes" int32 [views, 4] for `cutmix`.
    """
    unknown = jnp.zeros(row["image"].shape[:2], jnp.uint8)
    row = augment({**row, "label": unknown}, key, weak)
    image, inside = row["image"], row.pop("label") != IGNORE
    # `augment` folds small numbers into the key.
    colour_keys, box_keys = jax.random.split(jax.random.fold_in(key, 100), (2, views))
    strong = jax.vmap(lambda key: strong_colours(image, inside, key, config))(colour_keys)
    boxes = jax.vmap(lambda key: cutmix_box(key, weak.crop, config))(box_keys)
    return {**row, "inside": inside, "strong": strong, "boxes": boxes}
