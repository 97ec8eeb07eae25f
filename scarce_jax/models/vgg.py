"""VGG-16 (Simonyan and Zisserman, 2015, configuration D) as a backbone: its 13 convolutions.

Parameter paths follow the names of the paper and of Caffe: `conv3_2/kernel` is the second convolution of the third
group, and `bn3_2` its batch normalisation. `vgg_weights` maps torchvision's `features.N` to them.
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
from scarce_jax.ops.pool import max_pool_with_switches
from scarce_jax.ranges import Few, Width

CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Number of convolutions in each of the groups conv1 to conv5. A pooling may follow each group."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """Maximum pooling with PyTorch's sizes: H -> (H + 2 * padding - window) // stride + 1."""

    window: int
    stride: int
    padding: int = 0

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', C]"""
        return max_pool(x, self.window, self.stride, ((self.padding, self.padding),) * 2)

    def with_switches(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The maxima, and the place of each in its window, uint8 (see `max_pool_with_switches`).

        Raises:
          ValueError: the windows do not tile x.
        """
        if self.stride != self.window or self.padding:
            raise ValueError(f"{self} has no switches; expected stride = window and no padding")
        return max_pool_with_switches(x, self.window)


POOLS: tuple[Pool | None, ...] = (Pool(2, 2),) * 5
"""Poolings of the paper. Each halves the image, rounded down."""

GEOMETRIES: dict[int, dict[str, Any]] = {
    8: {"pools": (*POOLS[:3], Pool(3, 1, 1), None), "dilation": 2},
    16: {"pools": (*POOLS[:4], None)},
    32: {"pools": POOLS},
}
"""Stride of the last features -> poolings, and dilation of conv5. That of stride 8 is of online attention accumulation
(Jiang et al., 2019)."""


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
      normalisation: the input normalisation into which the images are converted.
      frozen: number of groups, from the first, that pass no gradient and use running averages also in training.
      frozen_statistics: all groups use running averages also in training.
      dtype: dtype of the computation and the outputs; parameters and batch statistics are float32.
    """

    width: int = 64
    batch_norm: bool = False
    pools: tuple[Pool | None, ...] = POOLS
    convolutions: tuple[int, ...] = CONVOLUTIONS
    dilation: int = 1
    normalisation: Normalisation = "imagenet"
    frozen: int = 0
    frozen_statistics: bool = False
    dtype: Any = jnp.float32

    def __call__(self, image: jax.Array | Encoded, *, train: bool) -> dict[str, jax.Array]:
        """Encodes images.

        Args:
          image: float [B, H, W, 3], RGB normalised by ImageNet's mean and deviation; or its frozen levels.
          train: use and update the statistics of this batch.

        Returns:
          {"layer1": [B, H // 2, W // 2, width], ..., "layer5": [B, H // 32, W // 32, 8 * width]} with the default
          pools: the features after each group and its pooling.

        Raises:
          ValueError: there are not five pools or groups of convolutions, or the image is too small for them.
        """
        return self._encode(image, train=train, switched=False)[0]

    def with_switches(self, image: jax.Array, *, train: bool) -> tuple[dict[str, jax.Array], tuple[jax.Array, ...]]:
        """The same features, and the switches of each pool for the unpooling, uint8 of the shape of its maxima.

        Raises:
          ValueError: also if the windows of a pool do not tile its input.
        """
        return self._encode(image, train=train, switched=True)

    @nn.compact
    def _encode(
        self, image: jax.Array | Encoded, *, train: bool, switched: bool
    ) -> tuple[dict[str, jax.Array], tuple[jax.Array, ...]]:
        """Features, and switches or none."""
        if len(self.pools) != len(CONVOLUTIONS):
            raise ValueError(f"pools of a VGG-16 are {len(self.pools)}; expected 5, each a Pool or None")
        check_convolutions(self.convolutions)
        levels, switches = known_levels(image, self.frozen_levels), []
        x = levels[self.frozen_levels[-1]] if levels else renormalise(image, self.normalisation).astype(self.dtype)
        for group, (count, pool) in enumerate(zip(self.convolutions, self.pools, strict=True), start=1):
            if f"layer{group}" in levels:
                continue
            is_frozen = group <= self.frozen
            learns_statistics = train and not is_frozen and not self.frozen_statistics
            run = functools.partial(VGG16Trunk._convolve, group=group, count=count, train=learns_statistics)
            x = block(self, run, x)
            if pool is not None:
                if min(x.shape[1:3]) + 2 * pool.padding < pool.window:
                    raise ValueError(
                        f"image of {image.shape[1]} x {image.shape[2]} is too small for this VGG-16: {pool} after "
                        f"conv{group} finds {x.shape[1]} x {x.shape[2]}; give a larger one"
                    )
                if switched:
                    x, places = pool.with_switches(x)
                    switches.append(places)
                else:
                    x = pool(x)
            x = jax.lax.stop_gradient(x) if is_frozen else x
            levels[f"layer{group}"] = x
        return levels, tuple(switches)

    @property
    def frozen_levels(self) -> tuple[str, ...]:
        """Names of the levels that no training changes, in the order of the computation."""
        return tuple(f"layer{group}" for group in range(1, self.frozen + 1))

    def _convolve(self, x: jax.Array, *, group: int, count: int, train: bool) -> jax.Array:
        """The convolutions of a group, without its pooling."""
        options = {"dilation": self.dilation if group == 5 else 1, "use_bias": True, "dtype": self.dtype}
        features = self.width * min(2 ** (group - 1), 8)
        for index in range(1, count + 1):
            place = f"{group}_{index}"
            bn = batch_norm(train=train, dtype=self.dtype, name=f"bn{place}") if self.batch_norm else None
            x = Convolution(features, 3, **options, name=f"conv{place}")(x, bn, relu=True)
        return x


@dataclasses.dataclass(frozen=True, kw_only=True)
class VGGConfig(BackboneConfig):
    """VGG-16 (Simonyan and Zisserman, 2015): 13 convolutions in five groups.

    Attributes:
      width: channels of conv1, at least 1; all layers scale with it. 64 in the paper.
      batch_norm: batch normalisation after each convolution, for training from scratch. The paper's net has none.
      convolutions: number of convolutions in each of the five groups, at least 1. Fewer suit small images.
      frozen: number of groups, 0 to 5 from the first, that are not trained. Their batch normalisation uses running
        averages.
      frozen_statistics: all batch normalisation of the backbone uses running averages also in training.
    """

    low_level = "layer2"

    kind: Annotated[Literal["vgg16"], KIND] = "vgg16"
    width: Width = 64
    batch_norm: bool = False
    convolutions: tuple[Few, Few, Few, Few, Few] = CONVOLUTIONS
    frozen: Annotated[int, Interval(ge=0, le=5)] = 0
    frozen_statistics: bool = False

    @property
    def head_width(self) -> int:
        return self.width

    @property
    def frozen_pattern(self) -> str | None:
        return rf"^backbone/(conv|bn)[1-{self.frozen}]_" if self.frozen else None

    def build(self, stride: int, dtype: Any = jnp.float32) -> VGG16Trunk:
        """The module whose last features have a stride of 8, 16 or 32. At 8, conv5 is dilated by 2."""
        if stride not in GEOMETRIES:
            raise ValueError(f"stride of a VGG-16 is {stride}; expected one of {list(GEOMETRIES)}")
        return self.with_pools(dtype=dtype, **GEOMETRIES[stride])

    def with_pools(self, pools: tuple[Pool | None, ...], dilation: int = 1, dtype: Any = jnp.float32) -> VGG16Trunk:
        """The module with these poolings, and conv5 dilated."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "kind"}
        return VGG16Trunk(pools=pools, dilation=dilation, dtype=dtype, **settings)
