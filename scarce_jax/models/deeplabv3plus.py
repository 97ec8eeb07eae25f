"""DeepLabv3+ (Chen et al., 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation").

The segmentation network of the three-step method, in the form of its authors' PyTorch code: a dilated ResNet, ordinary
in place of separable convolutions, and one 3x3 convolution in the decoder where the paper has two. 39,808,105
parameters at depth 50 with 201 classes, 58,800,233 at depth 101.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.backbones import Backbone
from scarce_jax.models.detailer import CoarseEmbedding, NearbyClasses, check_size, coarse_fractions
from scarce_jax.models.fields import KIND, BackboneNetConfig
from scarce_jax.models.heads import Head
from scarce_jax.models.layers import ConvUnit, he_normal_fan_out
from scarce_jax.models.pspnet import ConvBlock, Embedding
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.tracing import entering_head
from scarce_jax.ops.logits import Logits, from_patches
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.ranges import BelowOne, Channels, Few, Positive

RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""Output stride -> rates of the ASPP (section 4)."""

HEAD_PATTERN = r"^(aspp|decoder|classifier)"
"""Matches the layers that are not the backbone's, for a higher learning rate: `Group(pattern=HEAD_PATTERN, lr=10)`."""


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
      backbone: encoder, as `BackboneConfig` describes it.
      width: unit of the channels: the ASPP and the decoder have 4 times as many, the low-level features 3/4. 64 in the
        paper.
      patch: see `BackboneConfig`.
      low_level: level of the backbone that the decoder reads.
      output_stride: of the backbone, 8 or 16; the rates of the ASPP follow from it.
      dropout: rate after the ASPP.
      dtype: of the computation; the sums of the classifier, parameters and batch statistics are float32.
    """

    classes: int
    backbone: nn.Module
    width: int = 64
    patch: int = 1
    low_level: str = "layer1"
    output_stride: int = 8
    dropout: float = 0.1
    dtype: Any = jnp.float32

    def __call__(self, image: jax.Array, *, train: bool) -> tuple[Logits, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          train: whether batch statistics are used and updated, and features dropped (rng "dropout"). A batch of one
            image cannot train: the batch statistics of its image average would be those of one value.

        Returns:
          float32 logits [B, H, W, K], not yet resized from the size of the low-level features, a quarter; and None:
          there is no auxiliary head.
        """
        return self._segment(image, None, train=train), None

    @nn.compact
    def _segment(self, image: jax.Array, coarse: jax.Array | None, *, train: bool) -> Logits:
        """The whole net, where `coarse` is not None with the injection of that mask and the skip."""
        features = 4 * self.width
        levels = entering_head(self.backbone(image, train=train))
        *_, last = levels.values()
        last = self._inside(last, image, self.output_stride)  # [B, h, w, C]
        x = ASPP(features, RATES[self.output_stride], self.dropout, self.dtype, name="aspp")(last, train=train)
        unit = ConvUnit(3 * self.width // 4, 1, dtype=self.dtype, name="decoder_low")
        low = unit(self._inside(levels[self.low_level], image, 4), train=train)
        x = resize_bilinear(x, low.shape[1:3], align_corners=False)  # [B, H/4, W/4, C]
        mask = None if coarse is None else coarse_fractions(coarse, self.classes, low.shape[1:3], self.patch)
        parts = (low, x) if mask is None else (low, x, self._embedded(mask))
        x = ConvBlock(features, 3, dtype=self.dtype, name="decoder")(parts, train=train)
        logits = Head(self.classes, he_normal_fan_out, name="classifier")(x)
        logits = logits if mask is None else self._skipped(logits, mask)
        return from_patches(logits, image.shape[1:3], self.patch, coarse, align_corners=False)

    def _inside(self, features: jax.Array, image: jax.Array, stride: int) -> jax.Array:
        """Features without the last row and column where Caffe's rounding up puts these outside of the image."""
        rows, columns = (-(-side // stride) for side in image.shape[1:3])
        return features if self.patch > 1 else features[:, :rows, :columns]

    def _embedded(self, mask: jax.Array) -> Embedding:
        """What the decoder reads of the shares of classes in its cells, [B, h, w, K]."""
        raise NotImplementedError

    def _skipped(self, logits: jax.Array, mask: jax.Array) -> jax.Array:
        """The logits [B, h, w, K] with what the shares of classes add to them."""
        raise NotImplementedError


class DeepLabV3PlusDetailer(DeepLabV3Plus):
    """(Image, coarse mask) -> class logits: a DeepLabv3+ with the injection and the identity skip of `Detailer`.

    The coarse embedding joins the features that the decoder reads, at a quarter of the image's size. With a mask that
    is all void the output is that of the DeepLabv3+ with the same weights, as long as the bias of the embedding is
    zero, its initial value.

    Attributes:
      embedding: channels of the coarse embedding.
      nearby: windows of `NearbyClasses`, in quarters of the image's size; none, as in the paper, omits it.
      nearby_weight: initial value of their weights.
    """

    embedding: int = 64
    nearby: tuple[int, ...] = ()
    nearby_weight: float = 1.0

    def __call__(self, image: jax.Array, coarse: jax.Array, *, train: bool) -> tuple[Logits, None]:
        """Segments images with coarse masks.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          coarse: integer [B, H, W], class ids; 255 = void.
          train: as in DeepLabV3Plus.

        Returns:
          As DeepLabV3Plus.

        Raises:
          ValueError: the size of `coarse` is not that of the images.
        """
        check_size(coarse, image)
        return self._segment(image, coarse, train=train), None

    def _embedded(self, mask: jax.Array) -> Embedding:
        return CoarseEmbedding(self.embedding, name="coarse_embedding")(mask)

    def _skipped(self, logits: jax.Array, mask: jax.Array) -> jax.Array:
        if not self.nearby:
            return logits
        return logits + NearbyClasses(self.nearby, self.nearby_weight, name="nearby")(mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepLabV3PlusConfig(BackboneNetConfig):
    """DeepLabv3+ (Chen et al., 2018): a dilated backbone, ASPP, and a decoder that reads features of an early level.

    Attributes:
      backbone: the backbone, chosen by its kind; a ResNet of 50 layers in the three-step paper. Its width is a multiple
        of 4.
      output_stride: stride of the last features of a ResNet or a VGG: 8 (the three-step paper's) or 16, which takes a
        quarter of their memory. The rates of the ASPP follow from it.
      dropout: rate of the dropout, below 1, after the ASPP. 0.1 in the authors' code.
    """

    module = DeepLabV3Plus

    kind: Annotated[Literal["deeplabv3plus"], KIND] = "deeplabv3plus"
    backbone: Backbone = ResNetConfig(depth=50)
    output_stride: Literal[8, 16] = 8
    dropout: BelowOne = 0.1

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.backbone.head_width % 4:
            yield "backbone.width", "a multiple of 4, for the decoder's channels"

    def trunk(self, dtype: Any = jnp.float32) -> nn.Module:
        # As by torchvision's `replace_stride_with_dilation`.
        options = {"dilate_first": False} if isinstance(self.backbone, ResNetConfig) else {}
        return self.backbone.build(self.output_stride, dtype, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepLabV3PlusDetailerConfig(DeepLabV3PlusConfig):
    """A DeepLabv3+ that also reads a coarse mask, as the detailer does (Katsman et al., section 3.1).

    Attributes:
      backbone: the backbone, chosen by its kind. Its width is a multiple of 4.
      output_stride: stride of the last features of a ResNet or a VGG, 8 or 16.
      dropout: rate of the dropout, below 1, after the ASPP.
      embedding: channels of the coarse embedding, at least 1.
      nearby: sides of windows, in places of the decoder, which are 4 pixels apart. The classes that the coarse mask has
        in a window add to the logits of its middle, with a weight for each window that all classes share. The paper has
        no such windows.
      nearby_weight: initial value of these weights. Training on 25 images of CamVid hardly moved them.
    """

    module = DeepLabV3PlusDetailer

    kind: Annotated[Literal["deeplabv3plus_detailer"], KIND] = "deeplabv3plus_detailer"
    embedding: Channels = 64
    nearby: tuple[Few, ...] = ()
    nearby_weight: Positive = 1.0
