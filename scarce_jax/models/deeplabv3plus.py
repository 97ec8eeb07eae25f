"""DeepLabv3+ (Chen et al., 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation").

The segmentation network of the three-step method, in the form of its authors' PyTorch code: a dilated ResNet, ordinary
in place of separable convolutions, and one 3x3 convolution in the decoder where the paper has two. 39,808,105
parameters at depth 50 with 201 classes, 58,800,233 at depth 101.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Interval, MultipleOf

from scarce_jax.models.fields import KIND, NetConfig
from scarce_jax.models.heads import Head
from scarce_jax.models.layers import ConvUnit, he_normal_fan_out
from scarce_jax.models.resnet import ResNet
from scarce_jax.models.tags import TagClassifier
from scarce_jax.ops.logits import Resized
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.ranges import BelowOne

GEOMETRIES = {
    8: {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4), "rates": (12, 24, 36)},
    16: {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "rates": (6, 12, 18)},
}
"""Output stride -> strides and dilations of the ResNet's layers, and the rates of the ASPP (section 4)."""

HEAD_PATTERN = r"^(aspp|decoder|classifier)"
"""Matches the layers that are not the ResNet's, for a higher learning rate: `Group(pattern=HEAD_PATTERN, lr=10)`."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: [B, h, w, C] -> [B, h, w, features].

    A 1x1 convolution, three dilated 3x3 ones and the average over the image, side by side; then 1x1 and dropout.
    """

    features: int
    rates: tuple[int, ...]
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        branches = [ConvUnit(self.features, 1, dtype=self.dtype, name="point")(x, train=train)]
        for rate in self.rates:
            unit = ConvUnit(self.features, 3, dilation=rate, dtype=self.dtype, name=f"rate{rate}")
            branches.append(unit(x, train=train))
        average = x.mean((1, 2), keepdims=True)  # [B, 1, 1, C]
        average = ConvUnit(self.features, 1, dtype=self.dtype, name="pool")(average, train=train)
        branches.append(jnp.broadcast_to(average, branches[0].shape))
        x = jnp.concatenate(branches, -1)  # [B, h, w, 5 * features]
        x = ConvUnit(self.features, 1, dtype=self.dtype, name="project")(x, train=train)
        return nn.Dropout(self.dropout, name="dropout")(x, deterministic=not train)


class DeepLabV3Plus(nn.Module):
    """Image -> class logits at the image's own size.

    Attributes:
      classes: K.
      depth: of the ResNet: 18, 34, 50 or 101.
      width: of the ResNet's stem; the ASPP and the decoder (4 * width) and the low-level features (3/4 * width) scale
        with it. 64 in the paper.
      output_stride: of the ResNet, 8 or 16.
      dropout: rate after the ASPP.
      dtype: of the computation; the sums of the classifier, parameters and batch statistics are float32.
    """

    classes: int
    depth: int = 50
    width: int = 64
    output_stride: int = 8
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[Resized, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          train: whether batch statistics are used and updated, and features dropped (rng "dropout"). A batch of one
            image cannot train: the batch statistics of its image average would be those of one value.

        Returns:
          float32 logits [B, H, W, K], not yet resized from a quarter of the size; and None: there is no auxiliary head.
        """
        features = 4 * self.width
        trunk = encoder(self.depth, self.width, self.output_stride, self.dtype, name="backbone")
        layers = trunk(image, train=train)
        rates = GEOMETRIES[self.output_stride]["rates"]
        x = ASPP(features, rates, self.dropout, self.dtype, name="aspp")(layers["layer4"], train=train)
        low = ConvUnit(3 * self.width // 4, 1, dtype=self.dtype, name="decoder_low")(layers["layer1"], train=train)
        x = resize_bilinear(x, low.shape[1:3], align_corners=False)  # [B, H/4, W/4, C]
        x = jnp.concatenate((low, x), -1)
        x = ConvUnit(features, 3, dtype=self.dtype, name="decoder")(x, train=train)
        logits = Head(self.classes, he_normal_fan_out, name="classifier")(x)
        return Resized(logits, size=image.shape[1:3], align_corners=False), None


def encoder(depth: int, width: int, output_stride: int, dtype: Any, name: str | None = None) -> ResNet:
    """The ResNet of a DeepLabv3+, dilated as by torchvision's `replace_stride_with_dilation`."""
    geometry = GEOMETRIES[output_stride]
    return ResNet(
        depth,
        width=width,
        strides=geometry["strides"],
        dilations=geometry["dilations"],
        dilate_first=False,
        dtype=dtype,
        name=name,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepLabV3PlusConfig(NetConfig):
    """DeepLabv3+ (Chen et al., 2018): a dilated ResNet, ASPP, and a decoder that reads the features of layer1.

    Attributes:
      depth: depth of the ResNet: 18, 34, 50 (the three-step paper's) or 101.
      width: channels of the stem, a positive multiple of 4; all layers scale with it. 64 in the paper.
      output_stride: stride of the ResNet: 8 (the three-step paper's) or 16, which takes a quarter of layer4's memory.
      dropout: rate of the dropout, below 1, after the ASPP. 0.1 in the authors' code.
    """

    module = DeepLabV3Plus

    kind: Annotated[Literal["deeplabv3plus"], KIND] = "deeplabv3plus"
    depth: Literal[18, 34, 50, 101] = 50
    width: Annotated[int, Interval(ge=4, le=2**14), MultipleOf(4)] = 64
    output_stride: Literal[8, 16] = 8
    dropout: BelowOne = 0.1

    def classifier(self, tags: int, dtype: Any = jnp.float32) -> TagClassifier:
        """A classifier of image tags on the trunk of the net, with the same dropout."""
        trunk = encoder(self.depth, self.width, self.output_stride, dtype)
        return TagClassifier(backbone=trunk, classes=tags, dropout=self.dropout)
