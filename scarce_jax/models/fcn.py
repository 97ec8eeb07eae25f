"""Fully convolutional heads on any backbone (Long et al., 2015), for images alone and with a coarse mask.

The head reads the last features of the backbone. Without 3x3 convolutions it is the linear head of DINOv2 (Oquab et
al., 2023, section 7.4, as its authors' code has it): batch normalisation, then a 1x1 convolution.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.backbones import Backbone
from scarce_jax.models.batch_norm import batch_norm
from scarce_jax.models.detailer import CoarseEmbedding, check_size, coarse_fractions
from scarce_jax.models.fields import KIND, BackboneNetConfig
from scarce_jax.models.pspnet import ConvBlock, Parts, PartsHead
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.tracing import entering_head
from scarce_jax.ops.logits import Logits, from_patches
from scarce_jax.ranges import BelowOne, Channels


class FCN(nn.Module):
    """Image -> class logits at the image's own size.

    Attributes:
      classes: K.
      backbone: encoder, as `BackboneConfig` describes it.
      patch: the `patch` of the backbone.
      layers: number of 3x3 convolutions with batch normalisation and ReLU. With 0 the features are normalised.
      channels: channels of each of them.
      dropout: probability with which each channel is dropped before the classifier.
      dtype: dtype of the computation; the sums of the classifier, parameters and batch statistics are float32.
    """

    classes: int
    backbone: nn.Module
    patch: int = 1
    layers: int = 2
    channels: int = 512
    dropout: float = 0.1
    dtype: Any = jnp.float32

    def __call__(self, image: jax.Array, *, train: bool) -> tuple[Logits, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          train: use and update the statistics of this batch, and drop channels (random key "dropout").

        Returns:
          float32 logits [B, H, W, K], not yet resized unless patches reach beyond the image (`ops.logits`); and None:
          there is no auxiliary head.
        """
        return self._segment(image, None, train=train), None

    @nn.compact
    def _segment(self, image: jax.Array, coarse: jax.Array | None, *, train: bool) -> Logits:
        """The whole net, where `coarse` is not None with the injection of that mask and the skip."""
        *_, x = entering_head(self.backbone(image, train=train)).values()  # [B, h, w, C]
        if not self.layers:
            x = batch_norm(train=train, dtype=self.dtype, name="head_bn")(x)
        parts = (x,) if coarse is None else (x, *self._injected(coarse, x.shape[1:3]))
        for index in range(self.layers):
            parts = (ConvBlock(self.channels, 3, dtype=self.dtype, name=f"head_block{index}")(parts, train=train),)
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(parts[0], deterministic=not train)
        logits = PartsHead(self.classes, dtype=self.dtype, name="classifier")((x, *parts[1:]))  # [B, h, w, K]
        return from_patches(logits, image.shape[1:3], self.patch, coarse)

    def _injected(self, coarse: jax.Array, grid: tuple[int, int]) -> Parts:
        """What a mask [B, H, W] adds to features [B, *grid, C]."""
        raise NotImplementedError


class FCNDetailer(FCN):
    """(Image, coarse mask) -> class logits: an FCN with the injection and the identity skip of `Detailer`.

    The coarse embedding joins the last features of the backbone, after their normalisation where `layers` is 0. With a
    mask that is all void the output is that of the FCN with the same weights, as long as the bias of the embedding is
    zero, its initial value.

    Attributes:
      embedding: channels of the coarse embedding.
    """

    embedding: int = 800

    def __call__(self, image: jax.Array, coarse: jax.Array, *, train: bool) -> tuple[Logits, None]:
        """Segments images with coarse masks.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          coarse: integer [B, H, W], class ids; 255 = void.
          train: as in FCN.

        Returns:
          As FCN.

        Raises:
          ValueError: the size of `coarse` is not that of the images.
        """
        check_size(coarse, image)
        return self._segment(image, coarse, train=train), None

    def _injected(self, coarse: jax.Array, grid: tuple[int, int]) -> Parts:
        embedding = CoarseEmbedding(self.embedding, name="coarse_embedding")
        return (embedding(coarse_fractions(coarse, self.classes, grid, self.patch)),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FCNConfig(BackboneNetConfig):
    """A backbone and a small convolutional head (Long et al., 2015), or DINOv2's linear one.

    Attributes:
      backbone: the backbone, chosen by its kind.
      stride: stride of the last features of a ResNet or a VGG.
      layers: number of 3x3 convolutions of the head, with batch normalisation and ReLU. 0 is a linear head: batch
        normalisation and a 1x1 convolution.
      channels: channels of each of these convolutions.
      dropout: probability, below 1, with which each channel is dropped before the classifier.
    """

    module = FCN

    kind: Annotated[Literal["fcn"], KIND] = "fcn"
    backbone: Backbone = ResNetConfig()
    stride: Literal[8, 16, 32] = 8
    layers: Literal[0, 1, 2] = 2
    channels: Channels = 512
    dropout: BelowOne = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class FCNDetailerConfig(FCNConfig):
    """An FCN that also reads a coarse mask, as the detailer does (Katsman et al., section 3.1).

    Attributes:
      backbone: the backbone, chosen by its kind.
      stride: stride of the last features of a ResNet or a VGG.
      layers: number of 3x3 convolutions of the head, with batch normalisation and ReLU. 0 is a linear head: batch
        normalisation and a 1x1 convolution.
      channels: channels of each of these convolutions.
      dropout: probability, below 1, with which each channel is dropped before the classifier.
      embedding: channels of the coarse embedding, at least 1.
    """

    module = FCNDetailer

    kind: Annotated[Literal["fcn_detailer"], KIND] = "fcn_detailer"
    embedding: Channels = 800
