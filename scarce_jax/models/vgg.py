"""VGG-16 (Simonyan and Zisserman, 2015, configuration D) as an encoder: its 13 convolutions.

Parameter paths follow the names of the paper and of Caffe: `conv3_2/kernel` is the second convolution of the third
group, and `bn3_2` its batch normalisation. `weights.torch_vgg` maps torchvision's `features.N` to them.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.batch_norm import batch_norm
from scarce_jax.models.layers import Convolution
from scarce_jax.models.tracing import block
from scarce_jax.ops.max_pool import max_pool
from scarce_jax.ops.pool import max_pool_with_switches

CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Number of convolutions in each of the groups conv1 to conv5. A pooling may follow each group."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """Maximum pooling with PyTorch's sizes: H -> (H + 2 * padding - window) // stride + 1.

    Attributes:
      switches: also return the place of each maximum, for unpooling. The windows must then tile the image.
    """

    window: int
    stride: int
    padding: int = 0
    switches: bool = False

    def __post_init__(self):
        if self.switches and (self.stride != self.window or self.padding):
            raise ValueError(f"{self} keeps switches; expected stride = window and no padding")

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """[B, H, W, C] -> maxima [B, H', W', C], and their switches uint8 (see `max_pool_with_switches`) or None."""
        if self.switches:
            return max_pool_with_switches(x, self.window)
        return max_pool(x, self.window, self.stride, ((self.padding, self.padding),) * 2), None


POOLS: tuple[Pool | None, ...] = (Pool(2, 2),) * 5
"""Poolings of the paper. Each halves the image, rounded down."""


def check_convolutions(numbers: tuple[int, ...]) -> None:
    """Raises ValueError unless there are five numbers of convolutions, each at least 1."""
    if len(numbers) != len(CONVOLUTIONS) or min(numbers) < 1:
        raise ValueError(
            f"convolutions are {numbers}; expected five numbers of at least 1, VGG-16's are {CONVOLUTIONS}"
        )


class VGG16Trunk(nn.Module):
    """The 13 convolutions (3x3, with bias) in five groups, each convolution followed by a ReLU.

    14,714,688 parameters at width 64, and 14,723,136 with batch normalisation, as in torchvision's `vgg16_bn`. Kernels
    start from He's values over the outputs, as there, and biases from zero.

    Attributes:
      width: channels of conv1; conv2 to conv5 have 2, 4, 8 and 8 times as many. 64 in the paper.
      batch_norm: batch normalisation between each convolution and its ReLU.
      pools: pooling after each of the five groups, or None.
      convolutions: number of convolutions in each group. The receptive field of pool5 is 212 pixels wide, and with
        (1, 1, 1, 1, 1) 94 pixels, which suits small images better.
      dilation: dilation of conv5.
      dtype: dtype of the computation and the outputs; parameters and batch statistics are float32.
    """

    width: int = 64
    batch_norm: bool = False
    pools: tuple[Pool | None, ...] = POOLS
    convolutions: tuple[int, ...] = CONVOLUTIONS
    dilation: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, tuple[jax.Array | None, ...]]:
        """Encodes images.

        Args:
          image: float [B, H, W, 3], normalised RGB.
          train: use and update the statistics of this batch.

        Returns:
          Features [B, h, w, 8 * width] after the last pooling, with h = H // 32 for the default pools, and the switches
          of each of the five pools, None for one without.

        Raises:
          ValueError: there are not five pools or groups of convolutions, or the image is too small for them.
        """
        if len(self.pools) != len(CONVOLUTIONS):
            raise ValueError(f"pools of a VGG-16 are {len(self.pools)}; expected 5, each a Pool or None")
        check_convolutions(self.convolutions)
        x, switches = image.astype(self.dtype), []
        for group, (count, pool) in enumerate(zip(self.convolutions, self.pools, strict=True), start=1):
            run = functools.partial(VGG16Trunk._convolve, group=group, count=count, train=train)
            x = block(self, run, x)
            places = None
            if pool is not None:
                if min(x.shape[1:3]) + 2 * pool.padding < pool.window:
                    raise ValueError(
                        f"image of {image.shape[1]} x {image.shape[2]} is too small for this VGG-16: {pool} after "
                        f"conv{group} finds {x.shape[1]} x {x.shape[2]}; give a larger one"
                    )
                x, places = pool(x)
            switches.append(places)
        return x, tuple(switches)

    def _convolve(self, x: jax.Array, *, group: int, count: int, train: bool) -> jax.Array:
        """The convolutions of a group, without its pooling."""
        options = {"dilation": self.dilation if group == 5 else 1, "use_bias": True, "dtype": self.dtype}
        features = self.width * min(2 ** (group - 1), 8)
        for index in range(1, count + 1):
            place = f"{group}_{index}"
            bn = batch_norm(train=train, dtype=self.dtype, name=f"bn{place}") if self.batch_norm else None
            x = Convolution(features, 3, **options, name=f"conv{place}")(x, bn, relu=True)
        return x
