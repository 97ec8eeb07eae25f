"""The P-Net (label-and-prediction-transfer paper, table 1): does this mask fit its image as the truth would?"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.layers import convolution, max_pool

CONVOLUTIONS = ((1, 2), (4, 4), (8, 8))
"""Channels of the convolutions before each of the three pools, in widths."""


class PNet(nn.Module):
    """Image times mask -> one logit, that the mask is the truth; a sigmoid, which the caller takes, is the probability.

    Six 3x3 convolutions with ReLU in three groups, each pooled by 2x2 (rounded down), and three fully connected layers,
    the first two with tanh. The first of these fixes the size of the input: 52,843,105 parameters at 321 x 321, the
    images' own size, and 1,233,505 at 41 x 41, the segmentation's.

    Attributes:
      width: channels of the first convolution; all others are in proportion. The paper's is 16.
      dtype: of the computation up to the last layer, which like parameters is float32.
    """

    width: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, masked_image: jax.Array, *, train: bool) -> jax.Array:
        """Judges masks, one class of one image at a time.

        Args:
          masked_image: float [B, H, W, 3], the normalised image (mean zero, so that "outside" is the mean colour) times
            the mask of one class, 0 or 1 of the truth or the probability of a prediction. H and W at least 8, and the
            same in every call.
          train: changes nothing here; every network of a stage is called with it.

        Returns:
          float32 logits [B].

        Raises:
          ValueError: the input has not three channels, or a side is shorter than 8.
        """
        if masked_image.ndim != 4 or masked_image.shape[-1] != 3 or min(masked_image.shape[1:3]) < 8:
            raise ValueError(
                f"input of the P-Net has shape {masked_image.shape}; expected [B, H, W, 3], sides from 8 on"
            )
        x = masked_image.astype(self.dtype)
        for group, factors in enumerate(CONVOLUTIONS, start=1):
            for index, factor in enumerate(factors, start=1):
                name = f"conv{group}_{index}"
                x = nn.relu(convolution(factor * self.width, 3, use_bias=True, dtype=self.dtype, name=name)(x))
            x = max_pool(x, 2, 2, ((0, 0), (0, 0)))
        x = x.reshape(x.shape[0], -1)  # [B, H/8, W/8, C] -> [B, H/8 * W/8 * C]
        x = nn.tanh(nn.Dense(16 * self.width, dtype=self.dtype, name="fc4")(x))
        x = nn.tanh(nn.Dense(32 * self.width, dtype=self.dtype, name="fc5")(x))
        return nn.Dense(1, name="fc6")(x.astype(jnp.float32))[..., 0]
