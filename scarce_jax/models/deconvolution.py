"""Deconvolution networks with unpooling: the last part of the decoupled method's segmentation net, and its baseline.

Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation". Layers and sizes are those of the
authors' published Caffe definitions, where the paper gives none.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.errors import InputError
from scarce_jax.models.cam import CamClassifier
from scarce_jax.models.fields import KIND, check_vgg, check_width
from scarce_jax.models.layers import TransposedConv, batch_norm
from scarce_jax.models.vgg import CONVOLUTIONS, Pool, VGG16Trunk, check_convolutions
from scarce_jax.ops.pool import unpool

POOLS = (Pool(2, 2, 0, switches=True),) * 5
"""Of the encoders: each halves the image and keeps its switches."""

GROUPS = {5: (8, 8), 4: (8, 4), 3: (4, 2), 2: (2, 1), 1: (1, 1)}
"""Group g of deconvolutions -> channels, in widths, of all but its last one and of its last one.

Group g reads features that are unpooled with the switches of pool g."""


class DeconvNet(nn.Module):
    """The baseline: one deconvolution network for all classes.

    VGG-16 with batch normalisation and switches, fc6, fc7 and fc6-deconv, the deconvolution net, one softmax.
    251,805,653 parameters with 21 classes.

    Attributes:
      classes: K, with the background.
      width: of the trunk (see VGG16Trunk). The paper's is 64.
      hidden: channels of fc6 and fc7; None for 64 * width, the paper's 4096.
      fc6_kernel: side of the window of fc6 and fc6-deconv on pool5, the paper's 7.
      convolutions: of the trunk's groups, and deconvolutions.
      dtype: of the computation up to the logits, which like parameters and batch statistics are float32.
    """

    classes: int
    width: int = 64
    hidden: int | None = None
    fc6_kernel: int = 7
    convolutions: tuple[int, ...] = CONVOLUTIONS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB; H and W multiples of 32, at least 32 * fc6_kernel.
          train: whether batch statistics are used and updated.

        Returns:
          float32 logits [B, H, W, K], and None: there is no auxiliary head.

        Raises:
          ValueError: the image is of another size.
        """
        trunk = VGG16Trunk(self.width, True, POOLS, self.convolutions, dtype=self.dtype, name="backbone")
        x, switches = trunk(image, train=train)
        hidden = 64 * self.width if self.hidden is None else self.hidden
        fully = FullyConnected(hidden, self.width, self.fc6_kernel, self.dtype, name="fully_connected")
        x = fully(x, train=train)
        x = Deconvolution(self.width, self.convolutions, self.dtype, name="deconvolution")(x, switches, train=train)
        return score_layer(self.classes, "seg_score")(x), None


class FullyConnected(nn.Module):
    """fc6, fc7 and fc6-deconv: [B, h, w, C] -> [B, h, w, 8 * width] through a smaller grid of `hidden` channels.

    fc6 is a convolution without padding and fc6-deconv its transposed counterpart; each of the three is followed by
    batch normalisation and ReLU.
    """

    hidden: int
    width: int
    kernel: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        height, width = x.shape[1:3]
        if min(height, width) < self.kernel:
            raise ValueError(
                f"input of fc6 is {height} x {width}, smaller than its window, {self.kernel} x {self.kernel}; give "
                f"images of at least {32 * self.kernel} pixels, or a smaller fc6_kernel"
            )
        for name, kernel in (("fc6", self.kernel), ("fc7", 1)):
            layer = _convolution(self.hidden, kernel, "VALID", self.width, self.dtype, name)
            x = _normalised(layer(x), name, train=train, dtype=self.dtype)
        options = {"deviation": _deviation(self.width), "dtype": self.dtype, "name": "fc6_deconv"}
        layer = TransposedConv(8 * self.width, self.kernel, stride=1, padding=0, **options)
        return _normalised(layer(x), "fc6_deconv", train=train, dtype=self.dtype)


class Deconvolution(nn.Module):
    """The deconvolution net: unpool5 and deconv5_1 to deconv1_2, [B, h, w, 8 * width] -> [B, 32 * h, 32 * w, width].

    Each layer is followed by batch normalisation and ReLU. A deconvolution of stride 1 is a convolution whose kernel is
    turned by half a turn, so these are 3x3 convolutions. `convolutions` are how many of them groups 1 to 5 have.
    """

    width: int
    convolutions: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, switches: tuple[jax.Array, ...], *, train: bool) -> jax.Array:
        """`switches` are those of pool1 to pool5.

        Raises:
          ValueError: they are not five, or not of the sizes that lead from x to the image.
        """
        if len(switches) != len(GROUPS):
            raise ValueError(f"switches of {len(switches)} pools; expected 5, of pool1 to pool5")
        check_convolutions(self.convolutions)
        for group, (first, last) in GROUPS.items():
            x = unpool(x, switches[group - 1])
            number = self.convolutions[group - 1]
            for index in range(1, number + 1):
                name, factor = f"deconv{group}_{index}", last if index == number else first
                layer = _convolution(factor * self.width, 3, ((1, 1), (1, 1)), self.width, self.dtype, name)
                x = _normalised(layer(x), name, train=train, dtype=self.dtype)
        return x


def _deviation(width: int) -> float:
    """Of initial kernels: the authors' 0.01 at width 64.

    Batch normalisation makes a kernel's size the inverse of its learning rate; this keeps it the same at all widths.
    """
    return 0.01 * (64 / width) ** 0.5


def _convolution(features: int, kernel: int, padding: Any, width: int, dtype: Any, name: str) -> nn.Conv:
    initial = nn.initializers.normal(_deviation(width))
    return nn.Conv(features, (kernel, kernel), padding=padding, kernel_init=initial, dtype=dtype, name=name)


def score_layer(classes: int, name: str) -> nn.Conv:
    """The last 1x1 convolution, in float32 whatever its input is, since its results are logits.

    No normalisation follows it. With initial values as small as the authors' N(0, 0.01) narrow nets ended without an
    active channel on the foreground, where there is no gradient then: in trials on scenes/coloured, at an eighth of the
    width, `strong_only` had found background alone after 900 steps, and had an mIoU of 0.093 after 450 with these.
    """
    return nn.Conv(classes, (1, 1), kernel_init=nn.initializers.lecun_normal(), name=name)


def _normalised(x: jax.Array, name: str, *, train: bool, dtype: Any) -> jax.Array:
    return nn.relu(batch_norm(train=train, dtype=dtype, name=f"bn_{name}")(x))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeconvNetConfig:
    """DeconvNet (Noh, Hong and Han, 2015): VGG-16 with batch normalisation, and its mirror image with unpooling.

    Images need sides that are multiples of 32, at least 32 * fc6_kernel.

    Attributes:
      width: channels of VGG-16's conv1, at least 1; every layer scales with it. 64 in the paper.
      hidden: channels of fc6 and fc7, at least 1; None for 64 * width, the paper's 4096.
      fc6_kernel: side of the window of fc6 and fc6-deconv on pool5, at least 1. 7 in the paper.
      convolutions: of VGG-16's five groups, and as many deconvolutions, at least 1 each.
    """

    kind: Annotated[Literal["deconvnet"], KIND] = "deconvnet"
    width: int = 64
    hidden: int | None = None
    fc6_kernel: int = 7
    convolutions: tuple[int, int, int, int, int] = CONVOLUTIONS
    full_size: ClassVar[bool] = True

    def __post_init__(self):
        check_width(self.kind, self.width)
        check_vgg(self.kind, self.convolutions)
        for name in ("hidden", "fc6_kernel"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise InputError(f"{self.kind}: {name} is {number}; expected at least 1")

    def build(self, classes: int, dtype: Any = jnp.float32) -> DeconvNet:
        """The segmentation net: `module(image, train=...) -> (logits, None)`."""
        return DeconvNet(classes, self.width, self.hidden, self.fc6_kernel, self.convolutions, dtype)

    def classifier(self, tags: int, dtype: Any = jnp.float32, dropout: float | None = None) -> CamClassifier:
        """The classifier of image tags on the net's trunk; `dropout` of features, None for 0.5 (Zhou et al., 2016)."""
        rate = 0.5 if dropout is None else dropout
        return CamClassifier(tags, self.width, True, rate, self.convolutions, dtype=dtype)
