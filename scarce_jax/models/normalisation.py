"""Input normalisations of pretrained weights.

The pipeline normalises every image by ImageNet's mean and deviation. Weights that were trained with another
normalisation need their own. It belongs to the backbone: the backbone converts its images, so that training, evaluation
and prediction cannot differ.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.ops.augment import MEAN, STD

Normalisation = Literal["imagenet", "caffe", "inception"]
"""`imagenet`: RGB in 0..1, less the mean, by the deviation of ImageNet (torchvision, DINOv2, most of timm). `caffe`:
BGR in 0..255, less the mean (He et al.'s and Simonyan & Zisserman's Caffe models, Keras, DeepLab-v2). `inception`:
RGB in -1..1 (some of timm)."""

CAFFE_MEAN = (123.68, 116.779, 103.939)
"""Mean of R, G and B in 0..255 of the Caffe models."""


def renormalise(image: jax.Array, normalisation: Normalisation) -> jax.Array:
    """Converts images that are normalised by ImageNet's mean and deviation.

    Args:
      image: floating [..., 3], RGB normalised as `ops.augment.normalise` does.
      normalisation: that of the result.

    Returns:
      float32 [..., 3]; the channels of "caffe" are B, G, R.
    """
    mean, std = np.float32(MEAN), np.float32(STD)
    if normalisation == "caffe":
        return (image * (255 * std) + (255 * mean - np.float32(CAFFE_MEAN)))[..., ::-1].astype(jnp.float32)
    if normalisation == "inception":
        return (image * (2 * std) + (2 * mean - 1)).astype(jnp.float32)
    return image
