"""A classifier whose class activation maps localise image tags.

Zhou et al., 2016, "Learning Deep Features for Discriminative Localization".
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.backbones import Backbone
from scarce_jax.models.fields import KIND, BackboneConfig, BackboneNetConfig
from scarce_jax.models.layers import Convolution
from scarce_jax.models.tags import AveragedFeatures
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ranges import BelowOne

HEAD_PATTERN = r"^(conv\d|classifier)/"
"""Matches the layers after the backbone, for a higher learning rate: `Group(pattern=HEAD_PATTERN, lr=10)`."""


class CamClassifier(AveragedFeatures):
    """Image -> tag logits: the mean of each class activation map, plus a bias.

    A VGG-16 without pool5 (stride 16) is followed by a 3x3 convolution with ReLU, the average over the image, and one
    linear layer that starts from N(0, 0.01). 19,454,804 parameters with 20 classes. The authors' code has two groups in
    the convolution and no bias in the linear layer; this follows their paper.

    With `extra=(8, 8, 8)` and a VGG-16 of stride 8 it is the classifier of the three-step method (section 3.1, after
    Jiang et al., 2019): 21,896,712 parameters with 200 classes, 21,905,160 with batch normalisation. Any other backbone
    may take the place of VGG-16.

    Attributes:
      classes: number of tags, without the background.
      backbone: see `BackboneConfig`; its last features are read.
      width: `head_width` of the backbone. 64 in the paper.
      dropout: rate of the dropout of the averaged features.
      extra: channels of the additional convolutions conv6, conv7, ..., as multiples of `width`.
      dtype: dtype of the computation before the average, which is float32 as are parameters and batch statistics.
    """

    classes: int
    backbone: nn.Module
    width: int = 64
    dropout: float = 0.5
    extra: tuple[int, ...] = (16,)
    dtype: Any = jnp.float32

    def setup(self):
        for index, channels in enumerate(self.extra, start=6):
            layer = Convolution(channels * self.width, 3, use_bias=True, dtype=self.dtype)
            setattr(self, f"conv{index}", layer)
        self.feature_dropout = nn.Dropout(self.dropout)
        self.classifier = nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01))

    def features(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Features float32 [B, h, w, extra[-1] * width], at least 0, at the stride of the backbone."""
        *_, x = self.backbone(image, train=train).values()
        for index in range(6, 6 + len(self.extra)):
            x = getattr(self, f"conv{index}")(x, relu=True)
        return x.astype(jnp.float32)


def cam_classifier(backbone: BackboneConfig, tags: int, dropout: float, dtype: Any) -> CamClassifier:
    """The classifier of Zhou et al. on a backbone, with maps of a sixteenth of the image's size."""
    return CamClassifier(tags, backbone.build(16, dtype), backbone.head_width, dropout, dtype=dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CamVGGConfig(BackboneNetConfig):
    """The classifier of the three-step paper (section 3.1): maps of an eighth of the image, three more convolutions.

    It classifies image tags and does not segment. The paper's backbone is VGG-16.

    Attributes:
      backbone: the backbone, chosen by its kind. Batch normalisation in VGG-16 is as in the authors' code.
      dropout: rate of the dropout, below 1, of the averaged features. The paper has none.
    """

    module = CamClassifier

    kind: Annotated[Literal["cam_vgg"], KIND] = "cam_vgg"
    backbone: Backbone = VGGConfig(batch_norm=True)
    dropout: BelowOne = 0.0

    def classifier(self, tags: int, dtype: Any = jnp.float32) -> CamClassifier:
        """The classifier of image tags."""
        return self.module(tags, self.trunk(dtype), extra=(8, 8, 8), dtype=dtype, **self._settings())
