"""The segmentation network of the auxiliary-confidence paper, a modified DSNet-fast (its section 3.2.1, figures 2, 3).

The paper gives the units, the growth rate, the decoder's channels {24, 32, 16, 24}, the final fourfold deconvolution
and the size, 2.11 M parameters, but neither channels nor number of units per block, and there is no public code. Many
layouts fit. This one splits the initial block and the non-bottleneck units alike, a quarter of the channels to the left
branch and three quarters to the right ("the left branch helps the right branch to produce more feature channels"); its
bottlenecks are DenseNet's (four times the growth rate), its transitions keep the channels, and its last block has
fewer units than the one before ("reduced the CNN layers in the deeper block"). At width 32 it has 2,107,027 parameters
with 19 classes and 2,057,867 with 11.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.fields import KIND, check_width
from scarce_jax.models.layers import ConvUnit, Upsampler
from scarce_jax.models.tags import TagClassifier
from scarce_jax.ops.resize import resize_bilinear

UNITS = (3, 3, 6, 3)
"""Units of the four blocks."""


def average_pool_2x2(x: jax.Array) -> jax.Array:
    """Average over 2x2 windows at stride 2: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    The last window of an odd side is one pixel wide, and the average is over what it holds.
    """
    height, width = x.shape[1:3]
    if height % 2 or width % 2:  # Padding by nothing costs a tenth of a training step on a CPU.
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return nn.avg_pool(x, (2, 2), strides=(2, 2))


class TwoBranch(nn.Module):
    """Initial block and non-bottleneck unit (figure 3a, b): [B, H, W, C] -> [B, H, W, left + right].

    Left a 1x1 convolution, right two 3x3 ones, concatenated: two receptive fields side by side.
    """

    left: int
    right: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        left = ConvUnit(self.left, 1, dtype=self.dtype, name="left")(x, train=train)
        right = ConvUnit(self.right, 3, dtype=self.dtype, name="right1")(x, train=train)
        right = ConvUnit(self.right, 3, dtype=self.dtype, name="right2")(right, train=train)
        return jnp.concatenate([left, right], -1)


class DenseUnit(nn.Module):
    """Bottleneck unit (figure 3c): [B, H, W, C] -> [B, H, W, C + growth], the input and what it adds."""

    growth: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        added = ConvUnit(4 * self.growth, 1, dtype=self.dtype, name="reduce")(x, train=train)
        added = ConvUnit(self.growth, 3, dtype=self.dtype, name="grow")(added, train=train)
        return jnp.concatenate([x, added], -1)


class DSNetEncoder(nn.Module):
    """The trunk: images -> the outputs of its four blocks.

    Attributes:
      width: channels of the stem, and the growth rate; all others are in proportion. The paper's is 32.
      units: of Block 1 (non-bottleneck) and Blocks 2 to 4 (bottleneck).
      dtype: of the computation and the outputs; parameters and batch statistics are float32.
    """

    width: int = 32
    units: tuple[int, int, int, int] = UNITS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Encodes images.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          train: whether batch normalisation uses (and updates) the statistics of this batch.

        Returns:
          {"block1": [B, H/4, W/4, 4 * width], "block2": [B, H/8, W/8, 7 * width], "block3": [B, H/16, W/16,
          13 * width], "block4": [B, H/32, W/32, 16 * width]}, sizes rounded up.

        Raises:
          ValueError: `width` is odd.
        """
        width = self.width
        if width < 2 or width % 2:
            raise ValueError(f"width of a DSNet is {width}; expected an even number of at least 2")
        x = ConvUnit(width, 3, stride=2, dtype=self.dtype, name="stem")(image.astype(self.dtype), train=train)
        x = TwoBranch(width // 2, 3 * width // 2, dtype=self.dtype, name="initial")(x, train=train)
        x = average_pool_2x2(x)
        outputs = {}
        for block, units in enumerate(self.units, start=1):
            if block > 1:
                name = f"transition{block - 1}"
                x = ConvUnit(x.shape[-1], 1, dtype=self.dtype, name=name)(x, train=train)
                x = average_pool_2x2(x)
            for index in range(units):
                name = f"block{block}_unit{index}"
                if block == 1:
                    x = TwoBranch(width, 3 * width, dtype=self.dtype, name=name)(x, train=train)
                else:
                    x = DenseUnit(width, dtype=self.dtype, name=name)(x, train=train)
            outputs[f"block{block}"] = x
        return outputs


class DSNet(nn.Module):
    """Image -> class logits at the image's own size.

    Each block's output is reduced by a 3x3 convolution, brought to a quarter of the image's size (bilinear, by a whole
    factor), concatenated and deconvolved (8x8, stride 4). Every stride rounds up, so a side that 32 does not divide is
    covered to its end, and what lies beyond is cropped at the bottom and right: pixels stay where they are. 360 x 480
    gives blocks of 90 x 120, 45 x 60, 23 x 30 and 12 x 15.

    Attributes:
      classes: K.
      width: see DSNetEncoder; a multiple of 4. The paper's is 32.
      units: see DSNetEncoder.
      dtype: of the computation up to the deconvolution, which like parameters and batch statistics is float32.
    """

    classes: int
    width: int = 32
    units: tuple[int, int, int, int] = UNITS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          train: whether batch statistics are used and updated.

        Returns:
          float32 logits [B, H, W, K], and None: there is no auxiliary head.

        Raises:
          ValueError: `width` is not a multiple of 4.
        """
        if self.width < 4 or self.width % 4:
            raise ValueError(f"width of a DSNet is {self.width}; expected a multiple of 4, for the decoder's channels")
        blocks = DSNetEncoder(self.width, self.units, dtype=self.dtype, name="backbone")(image, train=train)
        quarter = blocks["block1"].shape[1:3]
        channels = (3 * self.width // 4, self.width, self.width // 2, 3 * self.width // 4)
        merged = []
        for index, (x, features) in enumerate(zip(blocks.values(), channels, strict=True)):
            x = ConvUnit(features, 3, dtype=self.dtype, name=f"decoder{index + 1}")(x, train=train)
            size = (x.shape[1] << index, x.shape[2] << index)  # [B, h, w, C] -> [B, H/4, W/4, C]
            merged.append(resize_bilinear(x, size, align_corners=False)[:, : quarter[0], : quarter[1]])
        return Upsampler(self.classes, name="classifier")(jnp.concatenate(merged, -1), image.shape[1:3]), None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DSNetConfig:
    """The real-time DSNet of the auxiliary-confidence paper (its section 3.2.1).

    Attributes:
      width: channels of the stem, and the growth rate; a positive multiple of 4. 32 in the paper.
    """

    kind: Annotated[Literal["dsnet"], KIND] = "dsnet"
    width: int = 32
    full_size: ClassVar[bool] = True

    def __post_init__(self):
        check_width(self.kind, self.width, multiple=4)

    def build(self, classes: int, dtype: Any = jnp.float32) -> DSNet:
        """The segmentation net: `module(image, train=...) -> (logits, None)`."""
        return DSNet(classes=classes, width=self.width, dtype=dtype)

    def classifier(self, tags: int, dtype: Any = jnp.float32, dropout: float | None = None) -> TagClassifier:
        """The classifier of image tags on the net's trunk; `dropout` of features, None for 0.1."""
        return TagClassifier(
            backbone=DSNetEncoder(self.width, dtype=dtype), classes=tags, dropout=0.1 if dropout is None else dropout
        )
