"""ResNet (He et al., 2016) as a dilated encoder, with 18, 34, 50 or 101 layers.

Parameter paths follow torchvision's names, so that its weights can be copied key by key: `layer3.0.conv2.weight` is
`layer3_block0/conv2/kernel`, `layer3.0.downsample.0` is `layer3_block0/downsample_conv`, and `layer3.0.downsample.1` is
`layer3_block0/downsample_bn`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Interval

from scarce_jax.models.batch_norm import batch_norm
from scarce_jax.models.encoded import Encoded, known_levels
from scarce_jax.models.fields import KIND, BackboneConfig
from scarce_jax.models.layers import Convolution
from scarce_jax.models.normalisation import Normalisation, renormalise
from scarce_jax.models.tracing import block
from scarce_jax.ops.max_pool import max_pool
from scarce_jax.ranges import Width

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Depth -> number of residual blocks in layer1 to layer4. From depth 50 on the blocks are bottlenecks."""

STRIDES = {
    8: {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)},
    16: {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)},
    32: {"strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1)},
}
"""Output stride -> strides and dilations of layer1 to layer4."""


def max_pool_3x3(x: jax.Array, *, ceil: bool = False) -> jax.Array:
    """Maximum over 3x3 windows at stride 2, padded by one: [B, H, W, C] -> [B, (H+1)//2, (W+1)//2, C].

    Args:
      ceil: add one window at the end of an even side, as Caffe and PyTorch's `ceil_mode` do: H -> H//2 + 1.
    """
    rows, columns = ((1, 1 + int(ceil and side % 2 == 0)) for side in x.shape[1:3])
    return max_pool(x, 3, 2, (rows, columns))


class Block(nn.Module):
    """Residual block: [B, H, W, C] -> [B, H/stride, W/stride, features], or 4 * features for a bottleneck.

    A basic block has two 3x3 convolutions, the first one with the stride. A bottleneck has 1x1, 3x3 and 1x1
    convolutions.

    Attributes:
      stride_first: the stride of a bottleneck is in its first 1x1 convolution, as in the paper and in Caffe. False is
        the 3x3 convolution, as in torchvision.
    """

    features: int
    bottleneck: bool
    stride: int = 1
    dilation: int = 1
    stride_first: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        # Features, kernel, stride and dilation of each convolution.
        if self.bottleneck:
            first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
            layers = [(self.features, 1, first, 1), (self.features, 3, second, self.dilation)]
            layers.append((4 * self.features, 1, 1, 1))
        else:
            layers = [(self.features, 3, self.stride, self.dilation), (self.features, 3, 1, self.dilation)]
        shortcut, outputs = x, layers[-1][0]
        if self.stride > 1 or x.shape[-1] != outputs:
            layer = Convolution(outputs, 1, stride=self.stride, dtype=self.dtype, name="downsample_conv")
            shortcut = layer(x, batch_norm(train=train, dtype=self.dtype, name="downsample_bn"))
        for index, (features, kernel, stride, dilation) in enumerate(layers, start=1):
            options = {"stride": stride, "dilation": dilation, "dtype": self.dtype}
            layer = Convolution(features, kernel, **options, name=f"conv{index}")
            bn = batch_norm(train=train, dtype=self.dtype, name=f"bn{index}")
            x = layer(x, bn, shortcut if index == len(layers) else None, relu=True)
        return x


class ResNet(nn.Module):
    """Encoder that returns the outputs of its stem and its four layers.

    The default strides and dilations are those of PSPNet (Zhao et al., 2017): output stride 8, all 3x3 convolutions of
    layer3 dilated by 2 and those of layer4 by 4.

    Attributes:
      depth: 18, 34, 50 or 101.
      width: channels of the 7x7 stem and of layer1; all layers scale with it. 64 in the paper.
      deep_stem: three 3x3 convolutions with width, width and 2 * width channels in place of the 7x7 one.
      strides, dilations: of layer1 to layer4. The stride is in the first block of a layer.
      dilate_first: dilate the first block of a layer like the others. Without it, the block keeps the dilation of the
        previous layer, as in torchvision's `replace_stride_with_dilation`.
      caffe: geometry of the original Caffe networks: bottlenecks have their stride in the first 1x1 convolution, and
        the pooling of the stem rounds up. The parameters are the same, but trained weights fit only one geometry.
      normalisation: that of the images which the layers read.
      frozen: number of parts, of the stem and layer1 to layer4, that training does not change: no gradient reaches
        them, and their batch normalisation uses and keeps its running averages.
      frozen_statistics: all batch normalisation uses and keeps its running averages in training.
      dtype: dtype of the computation and the outputs; parameters and batch statistics are float32.
    """

    depth: int
    width: int = 64
    deep_stem: bool = False
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    dilations: tuple[int, int, int, int] = (1, 1, 2, 4)
    dilate_first: bool = True
    caffe: bool = False
    normalisation: Normalisation = "imagenet"
    frozen: int = 0
    frozen_statistics: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array | Encoded, *, train: bool) -> dict[str, jax.Array]:
        """Encodes images.

        Args:
          image: float [B, H, W, 3], RGB normalised by ImageNet's mean and deviation, of any size; or its frozen levels.
          train: use and update the statistics of this batch, where they are not frozen.

        Returns:
          {"stem": [B, H/4, W/4, C0], "layer1": [B, H/4, W/4, C1], ..., "layer4": [B, H/8, W/8, C4]} with the default
          strides, sizes rounded up. C0 is `width`, or twice that with the deep stem. C1 to C4 are 1, 2, 4 and 8 times
          `width`, and four times that from depth 50 on.

        Raises:
          ValueError: `depth` is not in BLOCKS.
        """
        if self.depth not in BLOCKS:
            raise ValueError(f"ResNet depth is {self.depth}; expected one of {sorted(BLOCKS)}")
        parts = {"stem": self._stem}
        parts |= {f"layer{layer}": functools.partial(self._layer, layer) for layer in range(1, 5)}
        outputs = known_levels(image, self.frozen_levels)
        x = outputs[self.frozen_levels[-1]] if outputs else renormalise(image, self.normalisation).astype(self.dtype)
        for index, (name, run) in enumerate(parts.items()):
            if name in outputs:
                continue
            frozen = index < self.frozen
            x = run(x, train=train and not frozen and not self.frozen_statistics)
            outputs[name] = x = jax.lax.stop_gradient(x) if frozen else x
        return outputs

    @property
    def frozen_levels(self) -> tuple[str, ...]:
        """Names of the levels that no training changes, in the order of the computation."""
        return ("stem", "layer1", "layer2", "layer3", "layer4")[: self.frozen]

    def _layer(self, layer: int, x: jax.Array, *, train: bool) -> jax.Array:
        """The residual blocks of a layer, 1 to 4."""
        stride, previous, dilation = self.strides[layer - 1], (1, *self.dilations)[layer - 1], self.dilations[layer - 1]
        for index in range(BLOCKS[self.depth][layer - 1]):
            unit = Block(
                self.width * 2 ** (layer - 1),
                bottleneck=self.depth >= 50,
                stride=stride if index == 0 else 1,
                dilation=dilation if index or self.dilate_first else previous,
                stride_first=self.caffe,
                dtype=self.dtype,
                name=f"layer{layer}_block{index}",
            )
            x = block(unit, lambda unit, x: unit(x, train=train), x)
        return x

    def _stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, 3] -> [B, H/4, W/4, width], or 2 * width channels with the deep stem."""
        stem = ((self.width, 7, 2),)
        if self.deep_stem:
            stem = ((self.width, 3, 2), (self.width, 3, 1), (2 * self.width, 3, 1))
        for index, (features, kernel, stride) in enumerate(stem, start=1):
            layer = Convolution(features, kernel, stride=stride, dtype=self.dtype, name=f"conv{index}")
            x = layer(x, batch_norm(train=train, dtype=self.dtype, name=f"bn{index}"), relu=True)
        return max_pool_3x3(x, ceil=self.caffe)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig(BackboneConfig):
    """ResNet (He et al., 2016), dilated to the stride that the net wants.

    Attributes:
      depth: number of layers.
      width: channels of the stem, at least 1; all layers scale with it, those of the net's head too. 64 in the paper.
      deep_stem: three 3x3 convolutions in place of the 7x7 one, as semseg's PSPNet has.
      geometry: that of the weights. "torchvision" has the stride of a bottleneck in its 3x3 convolution, as most
        weights do. "caffe" has it in the first 1x1 convolution, and the pooling of the stem rounds up: the original
        networks, and what was converted from them. Initial values of the one are of no use in the other.
      normalisation: input normalisation of the weights: "imagenet" is RGB in 0..1 less ImageNet's mean, by its
        deviation (torchvision, most of timm), "caffe" BGR in 0..255 less the mean, "inception" RGB in -1..1.
      frozen: number of parts that training does not change, 0 to 5: the stem, layer1, layer2, layer3, layer4. Their
        batch normalisation uses running averages in training too.
      frozen_statistics: the batch normalisation of the whole backbone uses and keeps its running averages in training.
    """

    kind: Annotated[Literal["resnet"], KIND] = "resnet"
    depth: Literal[18, 34, 50, 101] = 101
    width: Width = 64
    deep_stem: bool = False
    geometry: Literal["torchvision", "caffe"] = "torchvision"
    frozen: Annotated[int, Interval(ge=0, le=5)] = 0
    frozen_statistics: bool = False

    @property
    def head_width(self) -> int:
        return self.width

    @property
    def frozen_pattern(self) -> str | None:
        parts = (r"(conv|bn)\d", "layer1_", "layer2_", "layer3_", "layer4_")[: self.frozen]
        return f"^backbone/({'|'.join(parts)})" if parts else None

    def build(self, stride: int, dtype: Any = jnp.float32, *, dilate_first: bool = True) -> ResNet:
        """The module. `dilate_first` is a field of it."""
        return ResNet(
            self.depth,
            width=self.width,
            deep_stem=self.deep_stem,
            **STRIDES[stride],
            dilate_first=dilate_first,
            caffe=self.geometry == "caffe",
            normalisation=self.normalisation,
            frozen=self.frozen,
            frozen_statistics=self.frozen_statistics,
            dtype=dtype,
        )
