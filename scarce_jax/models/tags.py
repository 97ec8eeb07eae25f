"""Classifiers of image tags, with which encoders are pretrained and classes localised."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp


class AveragedFeatures(nn.Module):
    """Base class of tag classifiers: averages features over the image, then applies dropout and one linear layer.

    A subclass has a field `backbone`, sets `feature_dropout` and `classifier` (an `nn.Dense`) in `setup`, and
    implements `features`.
    """

    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Classifies images.

        Args:
          image: float [B, H, W, 3], normalised RGB.
          train: use and update the statistics of this batch, and drop averaged features (random key "dropout").

        Returns:
          float32 logits [B, classes].
        """
        average = self.features(image, train=train).mean((1, 2))  # [B, h, w, C] -> [B, C]
        return self.classifier(self.feature_dropout(average, deterministic=not train))

    def class_activation_maps(self, image: jax.Array) -> jax.Array:
        """Class activation maps (Zhou et al., 2016, section 2).

        Returns:
          float32 [B, h, w, classes], of any sign and not normalised. The mean of a map plus the bias of the class is
          the logit.
        """
        kernel = self.classifier.variables["params"]["kernel"]
        return jnp.einsum("bhwc,ck->bhwk", self.features(image, train=False), kernel, precision="highest")

    def features(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Features float32 [B, h, w, C] of images."""
        raise NotImplementedError

    def layers(self, image: jax.Array) -> Mapping[str, jax.Array]:
        """The outputs of all layers of the backbone, without the classifier: `method="layers"`."""
        return self.backbone(image, train=False)


class TagClassifier(AveragedFeatures):
    """Image -> tag logits, from the last features of any encoder.

    Attributes:
      backbone: encoder, called as `backbone(image, train=...)`. It returns a mapping or a sequence of features
        [B, h, w, C], of which the last is used.
      classes: number of tags, without the background.
      dropout: rate of the dropout of the averaged features.
    """

    backbone: nn.Module
    classes: int
    dropout: float = 0.0

    def setup(self):
        self.feature_dropout = nn.Dropout(self.dropout)
        self.classifier = nn.Dense(self.classes)

    def features(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Features float32 [B, h, w, C] of the last layer of the encoder."""
        layers = self.backbone(image, train=train)
        *_, last = layers.values() if isinstance(layers, Mapping) else layers
        return last.astype(jnp.float32)
