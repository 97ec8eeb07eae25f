"""Deconvolution nets with unpooling: the last part of the decoupled method's segmentation net, and its baseline.

Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation". Details that the paper omits follow
the authors' published Caffe definitions.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import pydantic

from scarce_jax.errors import InputError
from scarce_jax.models.batch_norm import batch_norm
from scarce_jax.models.cam_vgg import CamClassifier, cam_classifier
from scarce_jax.models.encoded import Encoded
from scarce_jax.models.fields import KIND, BackboneConfig, BackboneNetConfig
from scarce_jax.models.heads import Head
from scarce_jax.models.layers import Convolution, TransposedConv
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.tracing import block, entering_head
from scarce_jax.models.vgg import CONVOLUTIONS, VGG16Trunk, VGGConfig, check_convolutions
from scarce_jax.ops.pool import unpool
from scarce_jax.ranges import Channels, Few

STRIDE = 32
"""Stride of the backbone: five unpoolings double its features up to the image."""

StridedBackbone = Annotated[ResNetConfig | VGGConfig, pydantic.Field(discriminator="kind")]
"""Annotation of the field `backbone` of a net with a deconvolution net: those that have this stride."""

GROUPS = {5: (8, 8), 4: (8, 4), 3: (4, 2), 2: (2, 1), 1: (1, 1)}
"""Group of deconvolutions -> channels of all its layers but the last, and of the last layer, as multiples of the width.

Group g reads the features that are unpooled with the switches of pool g."""


def encode(backbone: nn.Module, image: jax.Array | Encoded, *, train: bool) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The last features of a backbone, and the switches of VGG-16's five pools; other backbones have none.

    Args:
      image: float [B, H, W, 3], normalised RGB; or its frozen levels.

    Returns:
      [B, H / 32, W / 32, C]. What a ResNet of Caffe's geometry has beyond is left out: it lies outside of the image.

    Raises:
      ValueError: the sides of the image are no multiples of 32.
      InputError: the image is the frozen levels of a VGG-16, which lack the switches of their pools.
    """
    height, width = image.shape[1:3]
    if height % STRIDE or width % STRIDE:
        raise ValueError(f"image is {height} x {width}; expected multiples of {STRIDE}")
    if isinstance(backbone, VGG16Trunk):
        if isinstance(image, Encoded):
            raise InputError(
                "cache: expected 0, because the unpooling reads the switches of VGG-16's pools, which are not kept; "
                "leave cache out, or set net.backbone to resnet"
            )
        levels, switches = backbone.with_switches(image, train=train)
    else:
        levels, switches = backbone(image, train=train), ()
    *_, last = entering_head(levels).values()
    return last[:, : height // STRIDE, : width // STRIDE], switches


def units(backbone: BackboneConfig) -> int:
    """Channels of fc6 and fc7 as a multiple of the backbone's `head_width`: 64 for VGG-16, as in the papers, else 16.

    So fc6 has as many parameters, 103 million, on the 2048 channels of a ResNet-50 as on the 512 of VGG-16.
    """
    return 64 if isinstance(backbone, VGGConfig) else 16


def mirrored(backbone: BackboneConfig) -> tuple[int, ...]:
    """Numbers of deconvolutions in groups 1 to 5: the numbers of convolutions in a VGG-16, in the paper's without."""
    return backbone.convolutions if isinstance(backbone, VGGConfig) else CONVOLUTIONS


class DeconvNet(nn.Module):
    """DeconvNet, the baseline of the decoupled method: one deconvolution net for all classes.

    A VGG-16 with batch normalisation and switches, fc6, fc7 and fc6-deconv, the deconvolution net and a softmax.
    251,805,653 parameters with 21 classes. Another backbone has no switches (see `Deconvolution`).

    Attributes:
      classes: K, with the background.
      backbone: of stride 32, see `BackboneConfig`; its last features are read.
      width: `head_width` of the backbone. 64 in the paper.
      hidden: channels of fc6 and fc7. 4096 in the paper.
      fc6_kernel: side of the window of fc6 and fc6-deconv on pool5. 7 in the paper.
      deconvolutions: number of deconvolutions in groups 1 to 5.
      dtype: dtype of the computation before the logits, which are float32 as are parameters and batch statistics.
    """

    classes: int
    backbone: nn.Module
    width: int = 64
    hidden: int = 4096
    fc6_kernel: int = 7
    deconvolutions: tuple[int, ...] = CONVOLUTIONS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB. H and W are multiples of 32, at least 32 * fc6_kernel.
          train: use and update the statistics of this batch.

        Returns:
          float32 logits [B, H, W, K], and None for the auxiliary head.

        Raises:
          ValueError: the image has another size.
        """
        x, switches = encode(self.backbone, image, train=train)  # [B, H/32, W/32, C]
        fully = FullyConnected(self.hidden, self.width, self.fc6_kernel, self.dtype, name="fully_connected")
        x = fully(x, train=train)
        x = Deconvolution(self.width, self.deconvolutions, self.dtype, name="deconvolution")(x, switches, train=train)
        return score_layer(self.classes, self.width, "seg_score")(x), None


class FullyConnected(nn.Module):
    """fc6, fc7 and fc6-deconv: [B, h, w, C] -> [B, h, w, 8 * width], through a smaller grid of `hidden` channels.

    fc6 is a convolution without padding, and fc6-deconv its transposed counterpart. Batch normalisation and ReLU follow
    each of the three.
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
                f"input of fc6 is {height} x {width}, smaller than its window, {self.kernel} x {self.kernel}; use "
                f"images of at least {32 * self.kernel} pixels, or a smaller fc6_kernel"
            )
        for name, kernel in (("fc6", self.kernel), ("fc7", 1)):
            x = _unit(_convolution(self.hidden, kernel, 0, self.width, self.dtype, name), x, train=train)
        options = {"deviation": _deviation(self.width), "dtype": self.dtype, "name": "fc6_deconv"}
        layer = TransposedConv(8 * self.width, self.kernel, stride=1, padding=0, **options)
        return batch_norm(train=train, dtype=self.dtype, name="bn_fc6_deconv")(layer(x), relu=True)


class Deconvolution(nn.Module):
    """The deconvolution net, unpool5 and deconv5_1 to deconv1_2: [B, h, w, 8 * width] -> [B, 32 * h, 32 * w, width].

    A deconvolution of stride 1 is a convolution with the kernel turned by half a turn, so the layers are 3x3
    convolutions. Batch normalisation and ReLU follow each of them.

    Features of a backbone without switches are unpooled to the upper left of each window, as in the decoder that Laina
    et al. (2016, "Deeper Depth Prediction with Fully Convolutional Residual Networks") put on a ResNet. That is where
    the features of a ResNet lie: (i, j) at pixel (32 * i, 32 * j). From there a 3x3 layer can learn to interpolate
    bilinearly.

    Attributes:
      convolutions: number of layers in groups 1 to 5.
    """

    width: int
    convolutions: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, switches: tuple[jax.Array, ...], *, train: bool) -> jax.Array:
        """Decodes features.

        Args:
          switches: switches of pool1 to pool5, or none.

        Raises:
          ValueError: there are neither five switches nor none, or their sizes do not lead from x to the image.
        """
        if len(switches) not in (0, len(GROUPS)):
            raise ValueError(f"switches of {len(switches)} pools; expected 5, those of pool1 to pool5, or none")
        check_convolutions(self.convolutions)
        for group, (first, last) in GROUPS.items():
            x = unpool(x, switches[group - 1] if switches else jnp.zeros(x.shape, jnp.uint8))
            number = self.convolutions[group - 1]
            channels = (first,) * (number - 1) + (last,)
            x = block(self, functools.partial(Deconvolution._group, group=group, channels=channels, train=train), x)
        return x

    def _group(self, x: jax.Array, *, group: int, channels: tuple[int, ...], train: bool) -> jax.Array:
        """The layers of a group, without the unpooling; `channels` are multiples of the width."""
        for index, factor in enumerate(channels, start=1):
            layer = _convolution(factor * self.width, 3, 1, self.width, self.dtype, f"deconv{group}_{index}")
            x = _unit(layer, x, train=train)
        return x


def _deviation(width: int) -> float:
    """Standard deviation of initial kernels: the authors' 0.01 at width 64.

    Before batch normalisation the effective learning rate of a kernel is inverse to its size. This scale gives kernels
    the same size at all widths.
    """
    return 0.01 * (64 / width) ** 0.5


def _convolution(features: int, kernel: int, padding: int, width: int, dtype: Any, name: str) -> Convolution:
    options = {"use_bias": True, "kernel_init": nn.initializers.normal(_deviation(width)), "dtype": dtype}
    return Convolution(features, kernel, padding=padding, **options, name=name)


def score_layer(classes: int, width: int, name: str) -> Head:
    """The last 1x1 convolution, with float32 sums. It starts from the authors' N(0, 0.01) at their width of 64.

    Narrower nets start from larger values, N(0, 1 / width). With N(0, 0.01) they ended without an active channel on the
    foreground, and so without a gradient there. In trials on scenes/coloured at an eighth of the width, `strong_only`
    predicted only background after 900 steps; with the larger values its mIoU was 0.093 after 450 steps.
    """
    narrow = width < 64
    return Head(classes, nn.initializers.lecun_normal() if narrow else nn.initializers.normal(0.01), name=name)


def _unit(layer: Convolution, x: jax.Array, *, train: bool) -> jax.Array:
    """A named convolution, batch normalisation and ReLU."""
    return layer(x, batch_norm(train=train, dtype=layer.dtype, name=f"bn_{layer.name}"), relu=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeconvNetConfig(BackboneNetConfig):
    """DeconvNet (Noh, Hong and Han, 2015): VGG-16 with batch normalisation, and its mirror image with unpooling.

    The sides of images must be multiples of 32, and at least 32 * fc6_kernel. On another backbone, which has no
    switches, values are unpooled to fixed places.

    Attributes:
      backbone: the backbone, chosen by its kind; all layers scale with its width.
      hidden: channels of fc6 and fc7, at least 1; None is 64 * width on VGG-16, 4096 in the paper, and 16 * width on a
        ResNet.
      fc6_kernel: side of the window of fc6 and fc6-deconv on pool5, at least 1. 7 in the paper.
      deconvolutions: number of deconvolutions in groups 1 to 5, at least 1; None is that of VGG-16's convolutions, and
        2, 2, 3, 3, 3 on a ResNet.
    """

    module = DeconvNet
    stride = STRIDE

    kind: Annotated[Literal["deconvnet"], KIND] = "deconvnet"
    backbone: StridedBackbone = VGGConfig(batch_norm=True)
    hidden: Channels | None = None
    fc6_kernel: Few = 7
    deconvolutions: tuple[Few, Few, Few, Few, Few] | None = None

    def _settings(self) -> dict[str, Any]:
        hidden = self.hidden or units(self.backbone) * self.backbone.head_width
        return super()._settings() | {
            "hidden": hidden,
            "deconvolutions": self.deconvolutions or mirrored(self.backbone),
        }

    def classifier(self, tags: int, dtype: Any = jnp.float32) -> CamClassifier:
        """A classifier of image tags on the backbone of the net, with dropout 0.5 (Zhou et al., 2016)."""
        return cam_classifier(self.backbone, tags, 0.5, dtype)
