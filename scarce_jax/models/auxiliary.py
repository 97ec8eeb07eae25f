"""The auxiliary net (auxiliary-confidence paper, section 3.2.2, table 1), which judges the class of each pixel."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.layers import ConvUnit, Upsampler, check_classes

RATES = (1, 2, 4, 8, 16)
"""Dilations of the branches of the ASPP."""


class AuxiliaryNet(nn.Module):
    """Class probabilities -> one logit per pixel, whose sigmoid is the confidence that the class is right.

    Five 3x3 convolutions, an ASPP without image pooling, and a fourfold deconvolution. Table 1 prints three input
    channels, but the text, which this follows, has one per class. All ASPP branches are 3x3, also the one of rate 1,
    which is 1x1 in DeepLab-v3+. 1,363,041 parameters with 19 classes, 1,360,737 with 11.

    Attributes:
      classes: K.
      width: channels of the first convolution and of each ASPP branch; all layers scale with it. 32 in the paper.
      dtype: dtype of the computation; parameters, batch statistics and the sums of the deconvolution are float32.
    """

    classes: int
    width: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, probabilities: jax.Array, *, train: bool) -> jax.Array:
        """Judges segmentations.

        Args:
          probabilities: floating [B, H, W, K] in 0..1, the softmax of the segmentation net, of any size.
          train: use and update the statistics of this batch.

        Returns:
          float32 logits [B, H, W].

        Raises:
          ValueError: the input does not have K channels.
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
        result = self.dtype if train else jnp.float32
        upsampler = Upsampler(1, dtype=self.dtype, result=result, name="classifier")
        return upsampler(x, probabilities.shape[1:3]).full()[..., 0]
