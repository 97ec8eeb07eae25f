"""The segmentation net of the auxiliary-confidence paper, a modified DSNet-fast (section 3.2.1, figures 2 and 3).

The paper gives the units, the growth rate, the channels of the decoder {24, 32, 16, 24}, the final fourfold
deconvolution and the size of 2.11 M parameters. It gives neither the channels nor the number of units of a block, and
there is no public code. This layout is one of many that fit:

- The initial block and the non-bottleneck units have a quarter of their channels in the left branch and three quarters
  in the right one ("the left branch helps the right branch to produce more feature channels").
- The bottlenecks are those of DenseNet, with four times the growth rate.
- The transitions keep the number of channels.
- The last block has fewer units than the one before ("reduced the CNN layers in the deeper block").

At width 32 it has 2,107,027 parameters with 19 classes and 2,057,867 with 11.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Interval, MultipleOf
from einops import rearrange, repeat

from scarce_jax.models.fields import KIND, NetConfig
from scarce_jax.models.layers import ConvUnit, Upsampler
from scarce_jax.models.tags import TagClassifier
from scarce_jax.models.tracing import block, entering_head
from scarce_jax.ops.logits import Phases
from scarce_jax.ops.resize import resize_bilinear

UNITS = (3, 3, 6, 3)
"""Number of units in each of the four blocks."""


def average_pool_2x2(x: jax.Array) -> jax.Array:
    """Average over 2x2 windows at stride 2: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    The last window of an odd side is one pixel wide, and its average is over that pixel. Sums are float32.
    """
    height, width = x.shape[1:3]
    if height % 2 or width % 2:  # An empty `jnp.pad` costs a tenth of a training step on a CPU.
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return _average_of_windows(x)


@jax.custom_vjp
def _average_of_windows(x: jax.Array) -> jax.Array:
    """`average_pool_2x2` of even sides, elementwise in both directions.

    With its gradient it is up to 7 times faster on a CPU than `nn.avg_pool`, which reduces windows.
    """
    windows = rearrange(x.astype(jnp.float32), "b (h p) (w q) c -> b h p w q c", p=2, q=2)
    total = windows[:, :, 0, :, 0] + windows[:, :, 0, :, 1] + windows[:, :, 1, :, 0] + windows[:, :, 1, :, 1]
    return (total / 4).astype(x.dtype)


def _spread(_, cotangent: jax.Array) -> tuple[jax.Array]:
    return (repeat(cotangent / 4, "b h w c -> b (h p) (w q) c", p=2, q=2),)


_average_of_windows.defvjp(lambda x: (_average_of_windows(x), None), _spread)


class TwoBranch(nn.Module):
    """Initial block and non-bottleneck unit (figures 3a and 3b): [B, H, W, C] -> [B, H, W, left + right].

    A 1x1 convolution on the left and two 3x3 convolutions on the right are concatenated.
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
    """Bottleneck unit (figure 3c): concatenates the input and new features, [B, H, W, C] -> [B, H, W, C + growth]."""

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
      width: channels of the stem, and the growth rate; all layers scale with it. 32 in the paper.
      units: number of units in block 1 (non-bottleneck) and in blocks 2 to 4 (bottleneck).
      dtype: dtype of the computation and the outputs; parameters and batch statistics are float32.
    """

    width: int = 32
    units: tuple[int, int, int, int] = UNITS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Encodes images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          train: use and update the statistics of this batch.

        Returns:
          {"block1": [B, H/4, W/4, 4 * width], "block2": [B, H/8, W/8, 7 * width], "block3": [B, H/16, W/16,
          13 * width], "block4": [B, H/32, W/32, 16 * width]}. Sizes are rounded up.

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
        for number, units in enumerate(self.units, start=1):
            if number > 1:
                name = f"transition{number - 1}"
                x = ConvUnit(x.shape[-1], 1, dtype=self.dtype, name=name)(x, train=train)
                x = average_pool_2x2(x)
            for index in range(units):
                name = f"block{number}_unit{index}"
                if number == 1:
                    unit = TwoBranch(width, 3 * width, dtype=self.dtype, name=name)
                else:
                    unit = DenseUnit(width, dtype=self.dtype, name=name)
                x = block(unit, lambda unit, x: unit(x, train=train), x)
            outputs[f"block{number}"] = x
        return outputs


class DSNet(nn.Module):
    """Image -> class logits at the size of the image.

    A 3x3 convolution reduces the output of each block. The results are resized bilinearly to a quarter of the image,
    concatenated, and deconvolved (8x8, stride 4). Sizes are rounded up at every stride, so that a side that is not a
    multiple of 32 is covered to its end, and the surplus is cropped at the bottom and on the right. Pixels keep their
    places. For example, the blocks of a 360 x 480 image have 90 x 120, 45 x 60, 23 x 30 and 12 x 15 places.

    Attributes:
      classes: K.
      width: see DSNetEncoder; a multiple of 4. 32 in the paper.
      units: see DSNetEncoder.
      dtype: dtype of the computation, and in training of the logits; otherwise they are float32, as always are
        parameters, batch statistics and the sums of the deconvolution.
    """

    classes: int
    width: int = 32
    units: tuple[int, int, int, int] = UNITS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[Phases, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          train: use and update the statistics of this batch.

        Returns:
          Logits [B, H, W, K] in phases, and None for the auxiliary head.

        Raises:
          ValueError: `width` is not a multiple of 4.
        """
        if self.width < 4 or self.width % 4:
            raise ValueError(f"width of a DSNet is {self.width}; expected a multiple of 4, for the decoder's channels")
        encoder = DSNetEncoder(self.width, self.units, dtype=self.dtype, name="backbone")
        blocks = entering_head(encoder(image, train=train))
        quarter = blocks["block1"].shape[1:3]
        channels = (3 * self.width // 4, self.width, self.width // 2, 3 * self.width // 4)
        merged = []
        for index, (x, features) in enumerate(zip(blocks.values(), channels, strict=True)):
            x = ConvUnit(features, 3, dtype=self.dtype, name=f"decoder{index + 1}")(x, train=train)
            size = (x.shape[1] << index, x.shape[2] << index)  # [B, h, w, C] -> [B, H/4, W/4, C]
            merged.append(resize_bilinear(x, size, align_corners=False)[:, : quarter[0], : quarter[1]])
        # In training the logits are read once, by a loss that computes in float32; here, a class is chosen by them.
        result = self.dtype if train else jnp.float32
        upsampler = Upsampler(self.classes, dtype=self.dtype, result=result, name="classifier")
        return upsampler(jnp.concatenate(merged, -1), image.shape[1:3]), None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DSNetConfig(NetConfig):
    """The real-time DSNet of the auxiliary-confidence paper (section 3.2.1).

    Attributes:
      width: channels of the stem, and the growth rate; a positive multiple of 4. All layers scale with it. 32 in the
        paper.
    """

    module = DSNet

    kind: Annotated[Literal["dsnet"], KIND] = "dsnet"
    width: Annotated[int, Interval(ge=4, le=2**14), MultipleOf(4)] = 32

    def classifier(self, tags: int, dtype: Any = jnp.float32) -> TagClassifier:
        """A classifier of image tags on the trunk of the net, with dropout 0.1."""
        return TagClassifier(backbone=DSNetEncoder(self.width, dtype=dtype), classes=tags, dropout=0.1)
