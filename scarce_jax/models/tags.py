"""A classifier of image tags on top of any encoder: what an encoder is pretrained with where pixel labels are few."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp


class TagClassifier(nn.Module):
    """Image -> logits of its tags: the encoder's last features, averaged over the image, and one linear layer.

    Attributes:
      backbone: encoder called as `backbone(image, train=...)`, which returns its layers' features [B, h, w, C], the
        last one last (a mapping or a sequence); its parameters are under "backbone", as in a PSPNet.
      classes: number of tags, the background's not counted.
      dropout: rate at which averaged features are dropped (rng "dropout").
    """

    backbone: nn.Module
    classes: int
    dropout: float = 0.0

    def setup(self):
        self.feature_dropout = nn.Dropout(self.dropout)
        self.classifier = nn.Dense(self.classes)

    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """float [B, H, W, 3], normalised RGB -> float32 logits [B, classes]."""
        features = self._features(image, train=train).mean((1, 2))
        return self.classifier(self.feature_dropout(features, deterministic=not train))

    def maps(self, image: jax.Array) -> jax.Array:
        """Class activation maps, as `models.cam.CamClassifier.maps`: float32 [B, h, w, classes], any sign."""
        kernel = self.classifier.variables["params"]["kernel"]
        return jnp.einsum("bhwc,ck->bhwk", self._features(image, train=False), kernel, precision="highest")

    def _features(self, image: jax.Array, *, train: bool) -> jax.Array:
        """float32 [B, h, w, C] of the encoder's last layer."""
        layers = self.backbone(image, train=train)
        *_, last = layers.values() if isinstance(layers, Mapping) else layers
        return last.astype(jnp.float32)
