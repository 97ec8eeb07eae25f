"""Augmentation inside the compiled step: one inverse affine map per image, with gathers of uint8 pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from annotated_types import Interval
from einops import rearrange

from scarce_jax.data.schema import IGNORE, LABEL_FIELDS
from scarce_jax.ranges import Pixels, Share

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean of R, G and B in 0..1, which is subtracted from the input of every net."""

STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of R, G and B in 0..1."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in grey (ITU-R BT.601, as in torchvision)."""

Factor = Annotated[float, Interval(gt=0, le=100)]
GreyLevels = Annotated[float, Interval(ge=0, le=255)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """Ranges of the random augmentation. All draws of an image are independent.

    Attributes:
      crop: (height, width) of the result, in pixels.
      scale: (smallest, largest) scale factor, drawn uniformly; 0.5 to 2 in section 4.2 of the detailer paper.
      scales: factors of which one is drawn, all equally likely, in place of `scale`; empty draws from `scale`.
      rotate: largest angle in degrees. Angles are drawn uniformly in -rotate..rotate, about the centre of the image.
      rotate_probability: probability of a rotation. The detailer paper does not specify it; PSPNet's authors rotate
        half of the images.
      flip: probability of a horizontal flip.
      brightness: v draws a factor uniformly in 1 - v..1 + v, as torchvision's ColorJitter does.
      contrast: the same for the contrast, after the brightness.
      saturation: the same for the saturation, after the contrast. The image is clipped to 0..1 after each change.
      translate: largest translation in whole pixels of the result, drawn uniformly in -translate..translate along each
        axis, besides the place of the crop.
      shift: largest translation, as a share of the image's height and width, drawn uniformly in -shift..shift.
      noise: largest standard deviation of Gaussian noise, in grey levels of 255.
      blur: side of the windows of a median blur, 3 or 5; 0 for none.
      rgb_shift: largest shift of each channel, in grey levels of 255, drawn uniformly in -rgb_shift..rgb_shift.
      distort_probability: probability of each of noise, blur and rgb_shift, which follow the other changes in this
        order. 0.5 is the default of the three-step paper's library.
    """

    crop: tuple[Pixels, Pixels]
    scale: tuple[Factor, Factor] = (0.5, 2.0)
    scales: tuple[Factor, ...] = ()
    rotate: Annotated[float, Interval(ge=0, le=360)] = 10.0
    rotate_probability: Share = 1.0
    flip: Share = 0.5
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    translate: Annotated[int, Interval(ge=0, le=1000)] = 0
    shift: Share = 0.0
    noise: GreyLevels = 0.0
    blur: Literal[0, 3, 5] = 0
    rgb_shift: GreyLevels = 0.0
    distort_probability: Share = 0.5

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.scale[0] > self.scale[1]:
            yield "scale", "the smallest factor before the largest"
        if self.scales and self.scale != type(self).scale:
            yield "scales", "no factors beside a range (scale); set one of the two"


def normalise(image: jax.Array) -> jax.Array:
    """(image / 255 - MEAN) / STD: RGB in 0..255, uint8 or floating, [..., 3] -> float32 [..., 3]."""
    mean, std = jnp.asarray(MEAN, jnp.float32), jnp.asarray(STD, jnp.float32)
    return (image.astype(jnp.float32) / 255 - mean) / std


def denormalise(image: jax.Array) -> jax.Array:
    """The inverse of `normalise`: float [..., 3] -> float32 RGB in 0..255."""
    mean, std = jnp.asarray(MEAN, jnp.float32), jnp.asarray(STD, jnp.float32)
    return (image.astype(jnp.float32) * std + mean) * 255


def augment(row: dict[str, Any], key: jax.Array, config: Augment) -> dict[str, Any]:
    """Augments one row at random. Use `vmap` for a batch of rows and keys.

    The valid part of the image is rotated about its centre, flipped, scaled, and cropped at a uniformly drawn position
    in whole pixels. Along an axis where it is smaller than the crop it is centred. These steps are one inverse affine
    map, which may also move the image. The image is sampled once, bilinearly and without antialiasing, and masks take
    the nearest pixel.

    Args:
      row: "image" uint8 [H, W, 3]; optionally "label", "fine" and "coarse", uint8 [H, W]; "height" and "width" int32
        [], the size of the valid part in the upper left corner (default: the whole canvas). Other entries are passed
        through.
      key: random key. Equal keys give equal augmentations.
      config: static, the ranges.

    Returns:
      The row without "height" and "width". The image is float32 [*crop, 3], normalised, and 0 (the mean colour) outside
      the valid part. Masks are [*crop] in their dtype, and 255 outside.

    Raises:
      ValueError: the size of a mask is not that of the image.
    """
    image = row["image"]
    canvas = image.shape[:2]
    height, width = row.get("height", canvas[0]), row.get("width", canvas[1])
    # One call for all draws, because compiling a call costs more than running it. The number of draws does not depend
    # on the settings, so that changing one of them leaves the other draws as they were.
    drawn = jax.random.uniform(key, (9,))
    moved = (0, 0)
    if config.translate:
        moved = jax.random.randint(jax.random.fold_in(key, 3), (2,), -config.translate, config.translate + 1)
    y, x = _source_coordinates(drawn[:6], moved, height, width, config)
    if config.shift:
        down, right = config.shift * (2 * jax.random.uniform(jax.random.fold_in(key, 1), (2,)) - 1)
        y, x = y - down * height, x - right * width
    row_index = jnp.floor(y + 0.5).astype(jnp.int32)
    column_index = jnp.floor(x + 0.5).astype(jnp.int32)
    inside = (row_index >= 0) & (row_index < height) & (column_index >= 0) & (column_index < width)
    nearest = flat_index(row_index, column_index, height, width, canvas)

    result = {name: value for name, value in row.items() if name not in ("height", "width")}
    amounts = (config.brightness, config.contrast, config.saturation)
    pixels = jitter(sample_bilinear(image, y, x, height, width), inside, drawn[6:], amounts)
    pixels = _distort(pixels, jax.random.fold_in(key, 2), config)
    result["image"] = jnp.where(inside[..., None], normalise(pixels), 0.0)
    for name in ("label", *LABEL_FIELDS):
        if name in row:
            if row[name].shape != canvas:
                raise ValueError(f"{name} has shape {row[name].shape}; expected {canvas}, as the image")
            flat = rearrange(row[name], "h w -> (h w)")
            result[name] = jnp.where(inside, flat[nearest], jnp.asarray(IGNORE, flat.dtype))
    return result


def _source_coordinates(
    drawn: jax.Array, moved: jax.Array | tuple[int, int], height, width, config: Augment
) -> tuple[jax.Array, jax.Array]:
    """Rows and columns in the source of all pixels of the crop, two float32 [h, w]; pixel centres are at integers.

    Args:
      drawn: float32 [6], uniform in [0, 1).
      moved: pixels of the result by which the image is moved down and to the right.
    """
    smallest, largest = config.scale
    scale = smallest + (largest - smallest) * drawn[0]
    if config.scales:
        count = len(config.scales)
        scale = jnp.asarray(config.scales, jnp.float32)[jnp.minimum(drawn[0] * count, count - 1).astype(jnp.int32)]
    angle = jnp.deg2rad(config.rotate) * (2 * drawn[1] - 1)
    angle = jnp.where(drawn[2] < config.rotate_probability, angle, 0.0)
    mirror = jnp.where(drawn[3] < config.flip, -1.0, 1.0)
    # Offsets from the centre of the scaled image. From here on all is elementwise, because a matrix product may run in
    # TF32, which misplaces pixels beyond column 1024 by one.
    down = (_offsets(drawn[4], height * scale, config.crop[0]) - moved[0])[:, None]
    right = (_offsets(drawn[5], width * scale, config.crop[1]) - moved[1])[None, :] * mirror
    cosine, sine = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    return (
        cosine * down - sine * right + (height / 2 - 0.5),
        sine * down + cosine * right + (width / 2 - 0.5),
    )


def _offsets(position: jax.Array, length: jax.Array, crop: int) -> jax.Array:
    """Pixel centres of the crop along one axis, relative to the centre of the image: float32 [crop].

    Args:
      position: float32 [] in [0, 1), which selects one of the possible places of the crop.
      length: length of the scaled image, in pixels.
    """
    spare = jnp.floor(length - crop)
    start = jnp.minimum(jnp.floor(position * (spare + 1)), spare)
    start = jnp.where(spare >= 0, start, jnp.floor(spare / 2))
    return start + jnp.arange(crop) + 0.5 - length / 2


def flat_index(rows: jax.Array, columns: jax.Array, height, width, canvas: tuple[int, int]) -> jax.Array:
    """Indices into the flattened canvas for int32 rows and columns, which are clipped to the valid part."""
    return jnp.clip(rows, 0, height - 1) * canvas[1] + jnp.clip(columns, 0, width - 1)


def sample_bilinear(image: jax.Array, y: jax.Array, x: jax.Array, height, width) -> jax.Array:
    """Bilinear samples of an image uint8 [H, W, 3] at rows y and columns x, both [h, w]: float32 [h, w, 3] in 0..255.

    Samples outside the valid part take its edge pixels.
    """
    canvas, flat = image.shape[:2], rearrange(image, "h w c -> (h w) c")
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)

    def tap(rows: jax.Array, columns: jax.Array) -> jax.Array:
        # The gather is of uint8, a quarter of the bytes of float32.
        return flat[flat_index(rows, columns, height, width, canvas)].astype(jnp.float32)

    upper = tap(top, left) * (1 - right) + tap(top, left + 1) * right
    lower = tap(top + 1, left) * (1 - right) + tap(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def jitter(pixels: jax.Array, inside: jax.Array, drawn: jax.Array, amounts: tuple[float, float, float]) -> jax.Array:
    """Pixels [h, w, 3] in 0..255 with random brightness, contrast and saturation, in this order.

    Args:
      inside: bool [h, w], True for pixels of the image. The mean of the contrast leaves out the padding.
      drawn: float32 [3], uniform in [0, 1).
      amounts: static, the v of each change, whose factor is in 1 - v..1 + v. A change of 0 costs nothing.
    """
    brightness, contrast, saturation = (1 + v * (2 * number - 1) for v, number in zip(amounts, drawn, strict=True))

    def blend(pixels: jax.Array, other: jax.Array | float, share: jax.Array) -> jax.Array:
        return jnp.clip(pixels * share + other * (1 - share), 0, 255)

    if amounts[0]:
        pixels = blend(pixels, 0.0, brightness)
    if amounts[1]:
        mean = jnp.sum(grey(pixels) * inside[..., None]) / jnp.maximum(jnp.sum(inside), 1)
        pixels = blend(pixels, mean, contrast)
    if amounts[2]:
        pixels = blend(pixels, grey(pixels), saturation)
    return pixels


def grey(pixels: jax.Array) -> jax.Array:
    """The brightness of RGB pixels, [..., 3] -> [..., 1]."""
    return jnp.sum(pixels * jnp.asarray(LUMA, jnp.float32), -1, keepdims=True)


def _distort(pixels: jax.Array, key: jax.Array, config: Augment) -> jax.Array:
    """Pixels [h, w, 3] in 0..255 with random noise, median blur and shifts of the channels, each or not."""
    if not (config.noise or config.blur or config.rgb_shift):
        return pixels
    which, amount, grain, shift = jax.random.split(key, 4)
    chosen = jax.random.uniform(which, (3,)) < config.distort_probability
    if config.noise:
        deviation = config.noise * jax.random.uniform(amount)
        noisy = jnp.clip(pixels + deviation * jax.random.normal(grain, pixels.shape), 0, 255)
        pixels = jnp.where(chosen[0], noisy, pixels)
    if config.blur:
        pixels = jnp.where(chosen[1], median_blur(pixels, config.blur), pixels)
    if config.rgb_shift:
        shifts = config.rgb_shift * (2 * jax.random.uniform(shift, (3,)) - 1)
        pixels = jnp.where(chosen[2], jnp.clip(pixels + shifts, 0, 255), pixels)
    return pixels


def median_blur(image: jax.Array, side: int) -> jax.Array:
    """The median of each channel over windows of side x side pixels, of floating [H, W, C]; edges are repeated."""
    height, width = image.shape[:2]
    pad = side // 2
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    windows = [padded[i : i + height, j : j + width] for i in range(side) for j in range(side)]
    return jnp.median(jnp.stack(windows), axis=0)
