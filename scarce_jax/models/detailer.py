"""The detailer (Katsman et al., "Semantic Segmentation with Scarce Data", section 3.1)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE
from scarce_jax.models.encoded import Encoded
from scarce_jax.models.fields import INJECTIONS, KIND
from scarce_jax.models.layers import uniform_fan_in
from scarce_jax.models.pspnet import Embedding, Parts, PSPNet, PSPNetConfig
from scarce_jax.ops.logits import Logits
from scarce_jax.ops.resize import class_fractions
from scarce_jax.ranges import Channels


def check_size(coarse: jax.Array, image: jax.Array | Encoded) -> None:
    """Raises ValueError unless coarse masks [B, H, W] have the size of their images."""
    if coarse.shape != image.shape[:3]:
        raise ValueError(f"coarse mask has shape {coarse.shape}; expected {image.shape[:3]}, as the images")


def coarse_fractions(coarse: jax.Array, classes: int, grid: tuple[int, int], patch: int) -> jax.Array:
    """Shares of the classes in the cells of a backbone's features, float32 [B, h, w, K], less than 1 with void.

    Args:
      coarse: integer [B, H, W], class ids; 255 = void. Where patches reach beyond it, it is void.
      grid: (h, w).
      patch: see `BackboneConfig`.
    """
    ends = ((0, -side % patch) for side in coarse.shape[1:])
    return class_fractions(jnp.pad(coarse, ((0, 0), *ends), constant_values=IGNORE), classes, grid)


class CoarseEmbedding(nn.Module):
    """1x1 convolution with bias of the one-hot coarse mask: [B, H, W, K] -> [B, H, W, features], as factors.

    The parameters are those of an `nn.Conv`.
    """

    features: int

    @nn.compact
    def __call__(self, one_hot: jax.Array) -> Embedding:
        classes = one_hot.shape[-1]
        kernel = self.param("kernel", uniform_fan_in, (1, 1, classes, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        # The bias is the weight of a channel of ones. Zeros pad the channels to a multiple of 8, for tensor cores.
        channels = -(-(classes + 1) // 8) * 8
        inputs = jnp.pad(one_hot, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1)
        inputs = jnp.pad(inputs, ((0, 0), (0, 0), (0, 0), (0, channels - classes - 1)))
        weights = jnp.pad(jnp.concatenate([kernel[0, 0], bias[None]]), ((0, channels - classes - 1), (0, 0)))
        return Embedding(inputs, weights)


class NearbyClasses(nn.Module):
    """Logits for the classes that the coarse mask has nearby: [B, h, w, K] -> float32 [B, h, w, K].

    The logit of a class is its share of the labelled part of a window, times a weight of the window, summed over the
    windows. All classes have the same weights, so that a class which few training images show is continued beyond its
    coarse regions like the others. It is not in the paper.

    Attributes:
      windows: sides of the windows in cells, odd numbers.
      initial: initial value of the weights.
    """

    windows: tuple[int, ...]
    initial: float = 1.0

    @nn.compact
    def __call__(self, fractions: jax.Array) -> jax.Array:
        weights = self.param("weights", nn.initializers.constant(self.initial), (len(self.windows),), jnp.float32)
        logits = jnp.zeros_like(fractions)
        for index, side in enumerate(self.windows):
            near = nn.avg_pool(fractions, (side, side), padding="SAME")
            logits += weights[index] * near / jnp.maximum(near.sum(-1, keepdims=True), 1e-6)
        return logits


class Detailer(PSPNet):
    """(Image, coarse mask) -> class logits: a PSPNet with an injected coarse embedding and an identity skip.

    The coarse embedding is concatenated with the features at the place of the injection. The one-hot mask is averaged
    over the cells of the feature grid before it is embedded. Both maps are linear, so the order does not change the
    result, and this one is H * W / (h * w) times cheaper.

    The identity skip adds the one-hot mask at full resolution to the upsampled logits, so that the net learns the
    difference between fine and coarse masks. The auxiliary head has no skip. Void is a vector of zeros. With a mask
    that is all void the output is that of the PSPNet with the same weights, as long as the bias of the embedding is
    zero, its initial value.

    All weights of a PSPNet have the same paths here. `coarse_embedding` is new, and the convolutions that read it have
    more input channels (the last ones of `final_block/conv` with "after_pool").

    Attributes:
      inject: one of INJECTIONS. The paper does not say which one its tables use. "after_pool" leaves the PPM and its
        input as they were pretrained.
      embedding: channels of the coarse embedding.
    """

    inject: str = "after_pool"
    embedding: int = 800

    def setup(self):
        if self.inject not in INJECTIONS:
            raise ValueError(f"inject is {self.inject!r}; expected one of {INJECTIONS}")
        super().setup()
        self.coarse_embedding = CoarseEmbedding(self.embedding)

    def __call__(self, image: jax.Array, coarse: jax.Array, *, train: bool) -> tuple[Logits, Logits | None]:
        """Segments images with coarse masks.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          coarse: integer [B, H, W], class ids; 255 = void.
          train: as in PSPNet.

        Returns:
          As PSPNet.

        Raises:
          ValueError: the size of `coarse` is not that of the images.
        """
        check_size(coarse, image)

        def inject(place: str, parts: Parts) -> Parts:
            if place != self.inject:
                return parts
            one_hot = coarse_fractions(coarse, self.classes, parts[0].shape[1:3], self.patch)
            return (*parts, self.coarse_embedding(one_hot))  # [B, h, w, C + embedding] in parts

        return self._segment(image, inject, train=train, mask=coarse)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetailerConfig(PSPNetConfig):
    """The detailer (Katsman et al., section 3.1): a PSPNet that also reads a coarse mask.

    Attributes:
      backbone: the backbone, chosen by its kind; a ResNet of 101 layers in the paper.
      stride: stride of the last features of a ResNet or a VGG. 8 in the paper.
      dropout: probability, below 1, with which each channel is dropped before the classifiers.
      inject: where the coarse embedding enters: before the PPM, after it, or after the final block.
      embedding: channels of the coarse embedding, at least 1.
    """

    module = Detailer

    kind: Annotated[Literal["detailer"], KIND] = "detailer"
    inject: Literal["before_pool", "after_pool", "after_final"] = "after_pool"
    embedding: Channels = 800
