"""A very small net with all the features that matter to training, to try a whole recipe."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.batch_norm import batch_norm
from scarce_jax.models.fields import KIND, NetConfig
from scarce_jax.models.tags import TagClassifier
from scarce_jax.models.tracing import entering_head
from scarce_jax.ops.logits import Resized
from scarce_jax.ranges import BelowOne, Width


class TinyNet(nn.Module):
    """(Image, optional coarse mask) -> class logits: one strided convolution, BatchNorm, dropout and two heads.

    It is called like PSPNet or, with a coarse mask, like Detailer. It is not meant to predict good masks.

    Attributes:
      classes: K.
      width: half the channels of the convolution.
      dropout: probability with which each channel is dropped (random key "dropout").
      dtype: dtype of the convolution; heads, parameters and batch statistics are float32.
    """

    classes: int
    width: int = 4
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, coarse: jax.Array | None = None, *, train: bool) -> tuple[Resized, Resized]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          coarse: integer [B, H, W], class ids; 255 = void.
          train: use and update the statistics of this batch, and drop channels.

        Returns:
          Two float32 [B, H, W, K], not yet resized: the logits and those of the auxiliary head.
        """
        x = image
        if coarse is not None:
            x = jnp.concatenate([x, jax.nn.one_hot(coarse, self.classes)], -1)
        x = nn.Conv(2 * self.width, (3, 3), 2, use_bias=False, dtype=self.dtype, name="conv")(x)  # [B, H/2, W/2, C]
        x = entering_head({"layer1": batch_norm(train=train, name="bn")(x, relu=True)})["layer1"]
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(x, deterministic=not train)
        heads = [nn.Conv(self.classes, (1, 1), name=name)(x) for name in ("classifier", "aux_classifier")]
        logits, aux_logits = (Resized(head, size=image.shape[1:3], align_corners=True) for head in heads)
        return logits, aux_logits


class TinyEncoder(nn.Module):
    """Trunk of a tiny tag classifier: image [B, H, W, 3] -> {"layer1": [B, H/2, W/2, 2 * width]}."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        x = nn.Conv(2 * self.width, (3, 3), 2, use_bias=False, dtype=self.dtype, name="conv1")(image)
        return {"layer1": batch_norm(train=train, name="bn1")(x, relu=True)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyConfig(NetConfig):
    """One convolution and two heads: for trying a whole recipe, not for good masks.

    Attributes:
      width: half the channels of the convolution, at least 1.
      dropout: probability, below 1, with which each channel is dropped before the heads.
    """

    module = TinyNet

    kind: Annotated[Literal["tiny"], KIND] = "tiny"
    width: Width = 4
    dropout: BelowOne = 0.1

    def classifier(self, tags: int, dtype: Any = jnp.float32) -> TagClassifier:
        """A classifier of image tags on a trunk of the same width."""
        return TagClassifier(backbone=TinyEncoder(self.width, dtype=dtype), classes=tags, dropout=self.dropout)
