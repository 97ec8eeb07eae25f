"""Detailer (Katsman et al., "Semantic Segmentation with Scarce Data", section 3.1)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.errors import InputError
from scarce_jax.models.fields import KIND, check_choice, check_rate, check_width
from scarce_jax.models.layers import uniform_fan_in
from scarce_jax.models.pspnet import Embedding, Parts, PSPNet
from scarce_jax.models.resnet import BLOCKS
from scarce_jax.ops.resize import class_fractions

INJECTIONS = ("before_pool", "after_pool", "after_final")
"""The paper's places for the coarse embedding: before the PPM, after it, after the final block."""


class CoarseEmbedding(nn.Module):
    """1x1 convolution, with bias and nothing after it, of the one-hot coarse mask: K channels -> features.

    Returned as its factors; the parameters are those of an `nn.Conv`.
    """

    features: int

    @nn.compact
    def __call__(self, one_hot: jax.Array) -> Embedding:
        classes = one_hot.shape[-1]
        kernel = self.param("kernel", uniform_fan_in, (1, 1, classes, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        # The bias is the weight of a channel of ones. Zeros fill up to a multiple of 8, as tensor cores want.
        channels = -(-(classes + 1) // 8) * 8
        inputs = jnp.pad(one_hot, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1)
        inputs = jnp.pad(inputs, ((0, 0), (0, 0), (0, 0), (0, channels - classes - 1)))
        weights = jnp.pad(jnp.concatenate([kernel[0, 0], bias[None]]), ((0, channels - classes - 1), (0, 0)))
        return Embedding(inputs, weights)


class Detailer(PSPNet):
    """(Image, coarse mask) -> class logits: a PSPNet with an injected coarse embedding and an identity skip.

    The coarse embedding is concatenated with the visual features at the injection. The one-hot it embeds is
    averaged over the cells of the feature grid first: the two linear maps commute, and this order is
    H*W/(h*w) times cheaper. The identity skip adds the one-hot at full resolution to the upsampled logits, so
    that the network learns the difference between fine and coarse; the auxiliary head has none. Void is a
    vector of zeros: an all-void mask gives the output of the PSPNet with the same weights, as long as the
    embedding's bias is zero, its initial value.

    Every weight that a PSPNet has too is at the same parameter path here; `coarse_embedding` is the only
    addition, and the convolutions that read it have more input channels (the last ones of
    `final_block/conv` with "after_pool").

    Attributes:
      inject: one of INJECTIONS. The paper does not say which gave its tables; "after_pool" leaves the PPM
        and its input as they were pretrained.
      embedding: channels of the coarse embedding.
    """

    inject: str = "after_pool"
    embedding: int = 800

    def setup(self):
        if self.inject not in INJECTIONS:
            raise ValueError(f"inject is {self.inject!r}; expected one of {INJECTIONS}")
        super().setup()
        self.coarse_embedding = CoarseEmbedding(self.embedding)

    def __call__(self, image: jax.Array, coarse: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array | None]:
        """Details coarse masks.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          coarse: integer [B, H, W], class index; 255 = void.
          train: as in PSPNet.

        Returns:
          As PSPNet.

        Raises:
          ValueError: `coarse` is not of the images' size.
        """
        if coarse.shape != image.shape[:3]:
            raise ValueError(f"coarse mask has shape {coarse.shape}; expected {image.shape[:3]}, the images' own")

        def inject(place: str, parts: Parts) -> Parts:
            if place != self.inject:
                return parts
            one_hot = class_fractions(coarse, self.classes, parts[0].shape[1:3])
            return (*parts, self.coarse_embedding(one_hot))

        logits, aux_logits = self._segment(image, inject, train=train)
        # [B, H, W, K]
        identity = coarse[..., None] == jnp.arange(self.classes, dtype=coarse.dtype)
        return logits + identity.astype(logits.dtype), aux_logits


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetailerConfig:
    """The detailer (Katsman et al., section 3.1): a PSPNet that also reads a coarse mask.

    Attributes:
      depth, width, dropout: as in PSPNetConfig.
      inject: where the coarse embedding is concatenated: before the PPM, after it, or after the final block.
      embedding: channels of the coarse embedding, at least 1.
    """

    kind: Annotated[Literal["detailer"], KIND] = "detailer"
    depth: Literal[18, 34, 50, 101] = 101
    width: int = 64
    dropout: float = 0.1
    inject: Literal["before_pool", "after_pool", "after_final"] = "after_pool"
    embedding: int = 800
    full_size: ClassVar[bool] = True

    def __post_init__(self):
        check_choice(self.kind, "depth", self.depth, tuple(BLOCKS))
        check_choice(self.kind, "inject", self.inject, INJECTIONS)
        check_width(self.kind, self.width)
        check_rate(self.kind, self.dropout)
        if self.embedding < 1:
            raise InputError(f"{self.kind}: embedding is {self.embedding}; expected at least 1")

    def build(self, classes: int, dtype: Any = jnp.float32) -> Detailer:
        """The net: `module(image, coarse, train=...) -> (logits, auxiliary logits or None)`."""
        return Detailer(
            classes=classes,
            depth=self.depth,
            width=self.width,
            dropout=self.dropout,
            inject=self.inject,
            embedding=self.embedding,
            dtype=dtype,
        )
