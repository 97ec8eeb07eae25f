"""ResNet (He et al., 2016) as a dilated encoder: 18, 34, 50 and 101 layers, torchvision's layout, NHWC.

Parameter paths follow torchvision's names, so that its weights map key by key:
`layer3.0.conv2.weight` is `layer3_block0/conv2/kernel`, `layer3.0.downsample.0` is
`layer3_block0/downsample_conv` and `layer3.0.downsample.1` is `layer3_block0/downsample_bn`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.layers import batch_norm, convolution, max_pool

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Depth -> residual blocks in layer1..layer4; basic blocks up to 34, bottlenecks from 50 on."""


def max_pool_3x3(x: jax.Array, *, ceil: bool = False) -> jax.Array:
    """Maximum over 3x3 windows at stride 2, padded by one: [B, H, W, C] -> [B, (H+1)//2, (W+1)//2, C].

    With `ceil` an even side gets one window more, over its last entry: H//2 + 1 (torch's `ceil_mode`, and Caffe).
    """
    rows, columns = ((1, 1 + int(ceil and side % 2 == 0)) for side in x.shape[1:3])
    return max_pool(x, 3, 2, (rows, columns))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, H, W, C] -> [B, H/stride, W/stride, features].

    The stride is on the first convolution, so `stride_first` changes nothing.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    stride_first: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shortcut = _shortcut(x, self.features, self.stride, train=train, dtype=self.dtype)
        x = convolution(self.features, 3, stride=self.stride, dilation=self.dilation, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="bn1")(x))
        x = convolution(self.features, 3, dilation=self.dilation, dtype=self.dtype, name="conv2")(x)
        x = batch_norm(train=train, dtype=self.dtype, name="bn2")(x)
        return nn.relu(x + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the stride is on the 3x3, with `stride_first` on the 1x1.

    [B, H, W, C] -> [B, H/stride, W/stride, 4 * features]. torchvision's has the stride on the 3x3, the paper's
    and Caffe's on the first 1x1.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    stride_first: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shortcut = _shortcut(x, 4 * self.features, self.stride, train=train, dtype=self.dtype)
        first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
        x = convolution(self.features, 1, stride=first, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="bn1")(x))
        x = convolution(self.features, 3, stride=second, dilation=self.dilation, dtype=self.dtype, name="conv2")(x)
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="bn2")(x))
        x = convolution(4 * self.features, 1, dtype=self.dtype, name="conv3")(x)
        x = batch_norm(train=train, dtype=self.dtype, name="bn3")(x)
        return nn.relu(x + shortcut)


def _shortcut(x: jax.Array, features: int, stride: int, *, train: bool, dtype: Any) -> jax.Array:
    if stride == 1 and x.shape[-1] == features:
        return x
    x = convolution(features, 1, stride=stride, dtype=dtype, name="downsample_conv")(x)
    return batch_norm(train=train, dtype=dtype, name="downsample_bn")(x)


class ResNet(nn.Module):
    """Encoder that returns the output of each of its four layers.

    The default strides and dilations are those of PSPNet (Zhao et al., 2017): output stride 8, EVERY 3x3
    convolution of layer3 dilated by 2 and of layer4 by 4. (torchvision's `replace_stride_with_dilation`
    leaves the first block of a dilated layer at the dilation before it; the two differ on the same weights.)

    Attributes:
      depth: 18, 34, 50 or 101.
      width: channels after the 7x7 stem and inside layer1; every other layer is a multiple of it. 64 is the
        paper's.
      deep_stem: three 3x3 convolutions (width, width, 2 * width) instead of the 7x7 one.
      strides, dilations: of layer1..layer4. A layer strides in its first block only.
      caffe: the original Caffe networks' geometry: bottlenecks stride in their first 1x1 convolution, and the
        stem's pooling rounds up. Parameters are the same, but weights fit one geometry only.
      dtype: of the computation and the outputs; parameters and batch statistics are float32.
    """

    depth: int
    width: int = 64
    deep_stem: bool = False
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    dilations: tuple[int, int, int, int] = (1, 1, 2, 4)
    caffe: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Encodes images.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          train: whether batch normalisation uses (and updates) the statistics of this batch.

        Returns:
          {"layer1": [B, H/4, W/4, C1], ..., "layer4": [B, H/8, W/8, C4]} with the default strides, sizes
          rounded up, and C1..C4 = (1, 2, 4, 8) * width, four times that from depth 50 on.

        Raises:
          ValueError: `depth` is not one of BLOCKS.
        """
        if self.depth not in BLOCKS:
            raise ValueError(f"ResNet depth is {self.depth}; expected one of {sorted(BLOCKS)}")
        block = Bottleneck if self.depth >= 50 else BasicBlock
        x = self._stem(image.astype(self.dtype), train=train)
        outputs = {}
        for layer, blocks in enumerate(BLOCKS[self.depth]):
            for index in range(blocks):
                x = block(
                    self.width * 2**layer,
                    stride=self.strides[layer] if index == 0 else 1,
                    dilation=self.dilations[layer],
                    stride_first=self.caffe,
                    dtype=self.dtype,
                    name=f"layer{layer + 1}_block{index}",
                )(x, train=train)
            outputs[f"layer{layer + 1}"] = x
        return outputs

    def _stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        stem = (
            ((self.width, 3, 2), (self.width, 3, 1), (2 * self.width, 3, 1))
            if self.deep_stem
            else ((self.width, 7, 2),)
        )
        for index, (features, kernel, stride) in enumerate(stem, start=1):
            x = convolution(features, kernel, stride=stride, dtype=self.dtype, name=f"conv{index}")(x)
            x = nn.relu(batch_norm(train=train, dtype=self.dtype, name=f"bn{index}")(x))
        return max_pool_3x3(x, ceil=self.caffe)
