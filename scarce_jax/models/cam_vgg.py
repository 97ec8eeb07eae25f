"""A VGG-16 classifier whose class activation maps localise image tags.

Zhou et al., 2016, "Learning Deep Features for Discriminative Localization".
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.fields import KIND, NetConfig
from scarce_jax.models.layers import Convolution
from scarce_jax.models.tags import AveragedFeatures
from scarce_jax.models.vgg import CONVOLUTIONS, Pool, VGG16Trunk
from scarce_jax.ranges import BelowOne, Few, Width

GEOMETRIES = {
    16: {"pools": (Pool(2, 2),) * 4 + (None,)},
    8: {"pools": (Pool(2, 2),) * 3 + (Pool(3, 1, 1), None), "dilation": 2},
}
"""Stride of the maps -> poolings of the trunk and dilation of its conv5. The paper's stride is 16, without pool5."""

HEAD_PATTERN = r"^(conv\d|classifier)/"
"""Matches the layers that VGG-16 does not have, for a higher learning rate: `Group(pattern=HEAD_PATTERN, lr=10)`."""


class CamClassifier(AveragedFeatures):
    """Image -> tag logits: the mean of each class activation map, plus a bias.

    A VGG-16 without pool5 is followed by a 3x3 convolution with ReLU, the average over the image, and one linear layer
    that starts from N(0, 0.01). 19,454,804 parameters with 20 classes. The authors' code has two groups in the
    convolution and no bias in the linear layer; this follows their paper.

    With `extra=(8, 8, 8)` and `stride=8` it is the classifier of the three-step method (section 3.1, after Jiang et
    al., 2019): 21,896,712 parameters with 200 classes, 21,905,160 with batch normalisation.

    Attributes:
      classes: number of tags, without the background.
      width: width of the trunk (see VGG16Trunk). 64 in the paper.
      batch_norm: batch normalisation in the trunk. The paper's net has none.
      dropout: rate of the dropout of the averaged features.
      convolutions: number of convolutions in each group of the trunk.
      stride: stride of the maps: 16 as in the paper, or 8, with pool4 at stride 1 and conv5 dilated by 2.
      extra: channels of the additional convolutions conv6, conv7, ..., as multiples of `width`.
      dtype: dtype of the computation before the average, which is float32 as are parameters and batch statistics.
    """

    classes: int
    width: int = 64
    batch_norm: bool = False
    dropout: float = 0.5
    convolutions: tuple[int, ...] = CONVOLUTIONS
    stride: int = 16
    extra: tuple[int, ...] = (16,)
    dtype: Any = jnp.float32

    def setup(self):
        if self.stride not in GEOMETRIES:
            raise ValueError(
                f"stride of the class activation maps is {self.stride}; expected one of {list(GEOMETRIES)}"
            )
        options = {**GEOMETRIES[self.stride], "convolutions": self.convolutions, "dtype": self.dtype}
        self.backbone = VGG16Trunk(self.width, self.batch_norm, **options)
        for index, channels in enumerate(self.extra, start=6):
            layer = Convolution(channels * self.width, 3, use_bias=True, dtype=self.dtype)
            setattr(self, f"conv{index}", layer)
        self.feature_dropout = nn.Dropout(self.dropout)
        self.classifier = nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01))

    def features(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Features float32 [B, H // stride, W // stride, extra[-1] * width], at least 0; H and W at least `stride`."""
        x, _ = self.backbone(image, train=train)
        for index in range(6, 6 + len(self.extra)):
            x = getattr(self, f"conv{index}")(x, relu=True)
        return x.astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CamVGGConfig(NetConfig):
    """The VGG-16 of the three-step paper (section 3.1): maps of an eighth of the image, three more convolutions.

    It classifies image tags and does not segment.

    Attributes:
      width: channels of VGG-16's conv1, at least 1; all layers scale with it. 64 in the paper.
      batch_norm: batch normalisation in VGG-16, as in the authors' code.
      dropout: rate of the dropout, below 1, of the averaged features. The paper has none.
      convolutions: number of convolutions in each of VGG-16's five groups, at least 1.
    """

    module = CamClassifier

    kind: Annotated[Literal["cam_vgg"], KIND] = "cam_vgg"
    width: Width = 64
    batch_norm: bool = True
    dropout: BelowOne = 0.0
    convolutions: tuple[Few, Few, Few, Few, Few] = CONVOLUTIONS

    def classifier(self, tags: int, dtype: Any = jnp.float32) -> CamClassifier:
        """The classifier of image tags."""
        return self.module(tags, stride=8, extra=(8, 8, 8), dtype=dtype, **self._settings())
