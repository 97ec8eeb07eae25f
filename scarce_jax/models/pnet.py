"""The P-Net (label-and-prediction-transfer paper, table 1), which judges whether a mask fits its image."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.layers import Convolution
from scarce_jax.ops.max_pool import max_pool

CONVOLUTIONS = ((1, 2), (4, 4), (8, 8))
"""Channels of the convolutions before each of the three pools, as multiples of the width."""


class PNet(nn.Module):
    """Image times mask -> one logit, whose sigmoid is the probability that the mask is true.

    Three groups of two 3x3 convolutions with ReLU, each followed by 2x2 pooling (rounded down), and three fully
    connected layers, the first two with tanh. The first of them fixes the size of the input: 52,843,105 parameters at
    321 x 321, the size of the images, and 1,233,505 at 41 x 41, the size of the segmentation.

    Attributes:
      width: channels of the first convolution; all layers scale with it. 16 in the paper.
      dtype: dtype of the computation before the last layer, which is float32 as are the parameters.
    """

    width: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, masked_image: jax.Array, *, train: bool) -> jax.Array:
        """Judges masks, one class of one image at a time.

        Args:
          masked_image: float [B, H, W, 3], the normalised image times the mask of one class, which is 0 or 1, or for a
            predicted one also the probability. Zero is the mean colour. H and W are at least 8, and the same in each
            call.
          train: without effect; all nets are called with it.

        Returns:
          float32 logits [B].

        Raises:
          ValueError: the input does not have three channels, or a side is below 8.
        """
        if masked_image.ndim != 4 or masked_image.shape[-1] != 3 or min(masked_image.shape[1:3]) < 8:
            raise ValueError(
                f"input of the P-Net has shape {masked_image.shape}; expected [B, H, W, 3] with sides of at least 8"
            )
        x = masked_image.astype(self.dtype)
        for group, factors in enumerate(CONVOLUTIONS, start=1):
            for index, factor in enumerate(factors, start=1):
                name = f"conv{group}_{index}"
                x = Convolution(factor * self.width, 3, use_bias=True, dtype=self.dtype, name=name)(x, relu=True)
            x = max_pool(x, 2, 2, ((0, 0), (0, 0)))
        x = x.reshape(x.shape[0], -1)  # [B, H/8, W/8, C] -> [B, H/8 * W/8 * C]
        x = nn.tanh(nn.Dense(16 * self.width, dtype=self.dtype, name="fc4")(x))
        x = nn.tanh(nn.Dense(32 * self.width, dtype=self.dtype, name="fc5")(x))
        return nn.Dense(1, name="fc6")(x.astype(jnp.float32))[..., 0]
