"""The auxiliary network (auxiliary-confidence paper, section 3.2.2, table 1): is this pixel's class right?"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.layers import ConvUnit, Upsampler, check_classes

RATES = (1, 2, 4, 8, 16)
"""Dilations of the ASPP's branches."""


class AuxiliaryNet(nn.Module):
    """Class probabilities -> one logit per pixel; its sigmoid, which the caller takes, is the confidence.

    Five 3x3 convolutions, an ASPP without image pooling, and a fourfold deconvolution. Table 1 prints three input
    channels; the text says one per class, which is what it takes. All five ASPP branches are 3x3 (the paper gives
    rate 1 to the first; DeepLab-v3+ has a 1x1 there). 1,363,041 parameters with 19 classes, 1,360,737 with 11.

    Attributes:
      classes: K.
      width: channels of the first convolution and of each ASPP branch; the others are in proportion. The paper's is 32.
      dtype: of the computation up to the deconvolution, which like parameters and batch statistics is float32.
    """

    classes: int
    width: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, probabilities: jax.Array, *, train: bool) -> jax.Array:
        """Judges segmentations.

        Args:
          probabilities: floating [B, H, W, K] in 0..1, the segmentation network's softmax; any H and W.
          train: whether batch statistics are used and updated.

        Returns:
          float32 logits [B, H, W].

        Raises:
          ValueError: the input has not K channels.
        """
        check_classes(probabilities, self.classes)
        x = probabilities.astype(self.dtype)
        for index, (factor, stride) in enumerate(((1, 2), (2, 1), (4, 2), (8, 1), (8, 1)), start=1):
            unit = ConvUnit(factor * self.width, 3, stride=stride, dtype=self.dtype, name=f"conv{index}")
            x = unit(x, train=train)
        branches = [
            ConvUnit(self.width, 3, dilation=rate, dtype=self.dtype, name=f"aspp_rate{rate}")(x, train=train)
            for rate in RATES
        ]
        x = jnp.concatenate(branches, -1)  # [B, H/4, W/4, 5 * width]
        return Upsampler(1, name="classifier")(x, probabilities.shape[1:3])[..., 0]
