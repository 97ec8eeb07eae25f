"""ResNet (He et al., 2016) as a dilated encoder, with 18, 34, 50 or 101 layers.

Parameter paths follow torchvision's names, so that its weights can be copied key by key: `layer3.0.conv2.weight` is
`layer3_block0/conv2/kernel`, `layer3.0.downsample.0` is `layer3_block0/downsample_conv`, and `layer3.0.downsample.1` is
`layer3_block0/downsample_bn`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.batch_norm import batch_norm
from scarce_jax.models.layers import Convolution
from scarce_jax.models.tracing import block
from scarce_jax.ops.max_pool import max_pool

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Depth -> number of residual blocks in layer1 to layer4. From depth 50 on the blocks are bottlenecks."""


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
      dtype: dtype of the computation and the outputs; parameters and batch statistics are float32.
    """

    depth: int
    width: int = 64
    deep_stem: bool = False
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    dilations: tuple[int, int, int, int] = (1, 1, 2, 4)
    dilate_first: bool = True
    caffe: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Encodes images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          train: use and update the statistics of this batch.

        Returns:
          {"stem": [B, H/4, W/4, C0], "layer1": [B, H/4, W/4, C1], ..., "layer4": [B, H/8, W/8, C4]} with the default
          strides, sizes rounded up. C0 is `width`, or twice that with the deep stem. C1 to C4 are 1, 2, 4 and 8 times
          `width`, and four times that from depth 50 on.

        Raises:
          ValueError: `depth` is not in BLOCKS.
        """
        if self.depth not in BLOCKS:
            raise ValueError(f"ResNet depth is {self.depth}; expected one of {sorted(BLOCKS)}")
        x = self._stem(image.astype(self.dtype), train=train)
        outputs = {"stem": x}
        for layer, blocks in enumerate(BLOCKS[self.depth]):
            for index in range(blocks):
                keeps = index == 0 and not self.dilate_first
                unit = Block(
                    self.width * 2**layer,
                    bottleneck=self.depth >= 50,
                    stride=self.strides[layer] if index == 0 else 1,
                    dilation=(1, *self.dilations)[layer] if keeps else self.dilations[layer],
                    stride_first=self.caffe,
                    dtype=self.dtype,
                    name=f"layer{layer + 1}_block{index}",
                )
                x = block(unit, lambda unit, x: unit(x, train=train), x)
            outputs[f"layer{layer + 1}"] = x
        return outputs

    def _stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, 3] -> [B, H/4, W/4, width], or 2 * width channels with the deep stem."""
        stem = ((self.width, 7, 2),)
        if self.deep_stem:
            stem = ((self.width, 3, 2), (self.width, 3, 1), (2 * self.width, 3, 1))
        for index, (features, kernel, stride) in enumerate(stem, start=1):
            layer = Convolution(features, kernel, stride=stride, dtype=self.dtype, name=f"conv{index}")
            x = layer(x, batch_norm(train=train, dtype=self.dtype, name=f"bn{index}"), relu=True)
        return max_pool_3x3(x, ceil=self.caffe)
