"""The fully convolutional discriminator of Hung et al. (section 3.2), which judges whether a mask is true."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.layers import Convolution, check_classes, uniform_fan_in
from scarce_jax.ops.resize import resize_bilinear


class Discriminator(nn.Module):
    """Class probabilities or a one-hot mask -> one logit per pixel; its sigmoid is the probability of a true mask.

    Five 4x4 convolutions at stride 2, with leaky ReLUs (0.2) between them and without normalisation, are followed by
    bilinear upsampling. 2,781,121 parameters with 19 classes, 2,783,169 with 21.

    Attributes:
      classes: K.
      width: channels of the first convolution, doubled by each of the next three. 64 in the paper.
      dtype: dtype of the computation before the last convolution, which is float32 as are the parameters.
    """

    classes: int
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, probabilities: jax.Array, *, train: bool) -> jax.Array:
        """Judges segmentations.

        Args:
          probabilities: floating [B, H, W, K] in 0..1; void pixels are all zeros. H and W are at least 32.
          train: without effect; all nets are called with it.

        Returns:
          float32 logits [B, H, W], computed at a 32nd of the size.

        Raises:
          ValueError: the input does not have K channels, or a side is below 32.
        """
        check_classes(probabilities, self.classes)
        size = probabilities.shape[1:3]
        if min(size) < 32:
            raise ValueError(f"input of the discriminator is {size[0]} x {size[1]}; expected at least 32 x 32")
        x = probabilities.astype(self.dtype)
        for index in range(1, 5):
            x = nn.leaky_relu(_convolution(self.width << (index - 1), self.dtype, f"conv{index}")(x), 0.2)
        x = _convolution(1, jnp.float32, "classifier")(x)  # [B, H/32, W/32, 1]
        return resize_bilinear(x, size, align_corners=True)[..., 0]


def _convolution(features: int, dtype: Any, name: str) -> Convolution:
    """[B, H, W, C] -> [B, H//2, W//2, features]"""
    options = {"use_bias": True, "kernel_init": uniform_fan_in, "dtype": dtype}
    return Convolution(features, 4, stride=2, **options, name=name)
