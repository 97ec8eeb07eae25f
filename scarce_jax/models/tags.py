"""Classifiers of image tags: what an encoder is pretrained with where pixel labels are few."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp


class AveragedFeatures(nn.Module):
    """Base of tag classifiers: features averaged over the image, dropout, and one linear layer.

    A subclass sets `feature_dropout` and `classifier` (an `nn.Dense`) in `setup`, and defines `features`.
    """

    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Classifies images.

        Args:
          image: float [B, H, W, 3], normalised RGB.
          train: whether batch statistics are used and updated, and averaged features dropped (rng "dropout").

        Returns:
          float32 logits [B, classes].
        """
        average = self.features(image, train=train).mean((1, 2))  # [B, h, w, C] -> [B, C]
        return self.classifier(self.feature_dropout(average, deterministic=not train))

    def maps(self, image: jax.Array) -> jax.Array:
        """Class activation maps (Zhou et al., 2016, section 2): `module.apply(variables, image, method="maps")`.

        Returns:
          float32 [B, h, w, classes]; the mean over a map, plus the class's bias, is the logit. Any sign: no ReLU, no
          normalisation.
        """
        kernel = self.classifier.variables["params"]["kernel"]
        return jnp.einsum("bhwc,ck->bhwk", self.features(image, train=False), kernel, precision="highest")

    def features(self, image: jax.Array, *, train: bool) -> jax.Array:
        """float32 [B, h, w, C]."""
        raise NotImplementedError


class TagClassifier(AveragedFeatures):
    """Image -> logits of its tags, from the last features of any encoder.

    Attributes:
      backbone: encoder called as `backbone(image, train=...)`, which returns its layers' features [B, h, w, C], the
        last one last (a mapping or a sequence); its parameters are under "backbone", as in a PSPNet.
      classes: number of tags, the background's not counted.
      dropout: rate at which averaged features are dropped.
    """

    backbone: nn.Module
    classes: int
    dropout: float = 0.0

    def setup(self):
        self.feature_dropout = nn.Dropout(self.dropout)
        self.classifier = nn.Dense(self.classes)

    def features(self, image: jax.Array, *, train: bool) -> jax.Array:
        """float32 [B, h, w, C] of the encoder's last layer."""
        layers = self.backbone(image, train=train)
        *_, last = layers.values() if isinstance(layers, Mapping) else layers
        return last.astype(jnp.float32)
