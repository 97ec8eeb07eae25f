"""The VGG-16 classifier whose class activation maps localise tags (Zhou et al., 2016, "Learning Deep Features for
Discriminative Localization").
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.layers import convolution
from scarce_jax.models.tags import AveragedFeatures
from scarce_jax.models.vgg import CONVOLUTIONS, Pool, VGG16Trunk

GEOMETRIES = {
    16: {"pools": (Pool(2, 2),) * 4 + (None,)},
    8: {"pools": (Pool(2, 2),) * 3 + (Pool(3, 1, 1), None), "dilation": 2},
}
"""Stride of the maps -> pools of the trunk and dilation of its conv5. The paper's is 16, VGG-16 without pool5."""

HEAD_PATTERN = r"^(conv6|classifier)/"
"""Matches the layers that are not VGG-16's, for a higher learning rate: `Group(pattern=HEAD_PATTERN, lr=10)`."""


class CamClassifier(AveragedFeatures):
    """Image -> logits of its tags, which are the means of class activation maps, plus a bias.

    The VGG-16 without pool5, a 3x3 convolution of 1024 channels with ReLU, the average over the image and one linear
    layer. 19,454,804 parameters with 20 classes. (The authors' convolution has two groups and their linear layer no
    bias; one group is what their paper describes.) The linear layer starts from N(0, 0.01).

    Attributes:
      classes: number of tags, the background's not counted.
      width: of the trunk (see VGG16Trunk); the additional convolution has 16 times as many channels. The paper's is 64.
      batch_norm: in the trunk; the paper's net has none.
      dropout: rate at which averaged features are dropped.
      convolutions: of the trunk's groups.
      stride: of the maps: the paper's 16, or 8 with pool4 at stride 1 and conv5 dilated by 2.
      dtype: of the computation up to the average, which like parameters and batch statistics is float32.
    """

    classes: int
    width: int = 64
    batch_norm: bool = False
    dropout: float = 0.5
    convolutions: tuple[int, ...] = CONVOLUTIONS
    stride: int = 16
    dtype: Any = jnp.float32

    def setup(self):
        if self.stride not in GEOMETRIES:
            raise ValueError(
                f"stride of the class activation maps is {self.stride}; expected one of {list(GEOMETRIES)}"
            )
        options = {**GEOMETRIES[self.stride], "convolutions": self.convolutions, "dtype": self.dtype}
        self.backbone = VGG16Trunk(self.width, self.batch_norm, **options)
        self.conv6 = convolution(16 * self.width, 3, use_bias=True, dtype=self.dtype)
        self.feature_dropout = nn.Dropout(self.dropout)
        self.classifier = nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01))

    def features(self, image: jax.Array, *, train: bool) -> jax.Array:
        """float32 [B, H // stride, W // stride, 16 * width], not negative; H and W are at least `stride`."""
        x, _ = self.backbone(image, train=train)
        return nn.relu(self.conv6(x)).astype(jnp.float32)
