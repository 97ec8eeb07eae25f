"""The smallest net that has what matters to training, for trying a whole recipe."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.fields import KIND, check_rate, check_width
from scarce_jax.models.tags import TagClassifier
from scarce_jax.ops.resize import resize_bilinear


class TinyNet(nn.Module):
    """(Image, optional coarse mask) -> class logits: one strided convolution, BatchNorm, dropout and two heads.

    Called as PSPNet and, with a coarse mask, as Detailer. Good masks are not its purpose.

    Attributes:
      classes: K.
      width: the convolution has twice as many channels.
      dropout: rate at which whole channels are dropped (rng "dropout").
      dtype: of the convolution; heads, parameters and batch statistics are float32.
    """

    classes: int
    width: int = 4
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image: jax.Array, coarse: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          coarse: integer [B, H, W], class index; 255 = void. None where there is none.
          train: whether batch statistics are used and updated, and channels dropped.

        Returns:
          float32 logits [B, H, W, K], and the auxiliary head's of the same shape.
        """
        x = image
        if coarse is not None:
            x = jnp.concatenate([x, jax.nn.one_hot(coarse, self.classes)], -1)
        x = nn.Conv(2 * self.width, (3, 3), 2, use_bias=False, dtype=self.dtype, name="conv")(x)  # [B, H/2, W/2, C]
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2))(x, deterministic=not train)
        heads = [nn.Conv(self.classes, (1, 1), name=name)(x) for name in ("classifier", "aux_classifier")]
        logits, aux_logits = (resize_bilinear(head, image.shape[1:3], align_corners=True) for head in heads)
        return logits, aux_logits


class TinyEncoder(nn.Module):
    """Image [B, H, W, 3] -> {"layer1": [B, H/2, W/2, 2 * width]}: the trunk of a tiny tag classifier."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        x = nn.Conv(2 * self.width, (3, 3), 2, use_bias=False, dtype=self.dtype, name="conv1")(image)
        return {"layer1": nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn1")(x))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """One convolution and two heads: for trying a whole recipe, not for good masks.

    Attributes:
      width: half the convolution's channels, at least 1.
      dropout: rate in 0..1 at which channels are dropped before the heads, and a tag classifier's features.
    """

    kind: Annotated[Literal["tiny"], KIND] = "tiny"
    width: int = 4
    dropout: float = 0.1
    full_size: ClassVar[bool] = True

    def __post_init__(self):
        check_width(self.kind, self.width)
        check_rate(self.kind, self.dropout)

    def build(self, classes: int, dtype: Any = jnp.float32) -> TinyNet:
        """The segmentation net: `module(image, train=...)` or `module(image, coarse, train=...)` -> two logits."""
        return TinyNet(classes=classes, width=self.width, dropout=self.dropout, dtype=dtype)

    def classifier(self, tags: int, dtype: Any = jnp.float32, dropout: float | None = None) -> TagClassifier:
        """The classifier of image tags on a trunk of that width; `dropout` of features, None for the net's own."""
        trunk = TinyEncoder(self.width, dtype=dtype)
        return TagClassifier(backbone=trunk, classes=tags, dropout=self.dropout if dropout is None else dropout)
