"""DeepLab-v2 (Chen et al., 2018, "DeepLab"): dilated ResNet-101 and a sum of dilated classifiers (its ASPP-L).

The segmentation network that Hung et al. ("Adversarial Learning for Semi-Supervised Semantic Segmentation") use and
that the auxiliary-confidence paper compares itself with them on. 43,901,068 parameters with 19 classes, 44,048,532 with
21.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.fields import KIND, check_choice, check_width
from scarce_jax.models.resnet import BLOCKS, ResNet
from scarce_jax.models.tags import TagClassifier
from scarce_jax.ops.resize import resize_bilinear

RATES = (6, 12, 18, 24)
"""Dilations of the ASPP's branches. (The loop of Hung et al.'s code returns after the first two.)"""

AFFINE_PATTERN = r"bn\d?/(scale|bias)$"
"""Matches scale and bias of every batch normalisation, which Hung et al. freeze: `Group(pattern=AFFINE_PATTERN, lr=0)`.

They train with the statistics of each batch nevertheless, as `train=True` does here."""

HEAD_PATTERN = r"^aspp_"
"""Matches the classifiers, whose learning rate is ten times the backbone's: `Group(pattern=HEAD_PATTERN, lr=10)`."""


class DeepLabV2(nn.Module):
    """Image -> class logits at the image's own size.

    Attributes:
      classes: K.
      depth, width: of the ResNet; the paper's are 101 and 64.
      caffe: strides and pooling as in the Caffe network of the paper (see ResNet). False is the geometry that
        torchvision's weights were trained in.
      dtype: of the computation up to the classifiers, which like parameters and batch statistics are float32.
    """

    classes: int
    depth: int = 101
    width: int = 64
    caffe: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          train: whether batch statistics are used and updated.

        Returns:
          float32 logits [B, H, W, K], computed at an eighth of the size (321 -> 41); and None: there is no auxiliary
          head.
        """
        backbone = ResNet(self.depth, width=self.width, caffe=self.caffe, dtype=self.dtype, name="backbone")
        x = backbone(image, train=train)["layer4"].astype(jnp.float32)  # [B, h, w, C]
        branches = [
            nn.Conv(
                self.classes,
                (3, 3),
                padding=((rate, rate), (rate, rate)),
                kernel_dilation=(rate, rate),
                kernel_init=nn.initializers.normal(0.01),
                name=f"aspp_rate{rate}",
            )(x)
            for rate in RATES
        ]
        # [B, h, w, K] -> [B, H, W, K]
        return resize_bilinear(sum(branches), image.shape[1:3], align_corners=True), None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepLabV2Config:
    """DeepLab-v2 (Chen et al., 2018) as Hung et al. use it: dilated ResNet and ASPP, no auxiliary head.

    Attributes:
      depth: of the ResNet: 18, 34, 50 or 101 (the paper's).
      width: channels of the stem, at least 1; every layer scales with it. 64 in the paper.
    """

    kind: Annotated[Literal["deeplabv2"], KIND] = "deeplabv2"
    depth: Literal[18, 34, 50, 101] = 101
    width: int = 64
    full_size: ClassVar[bool] = True

    def __post_init__(self):
        check_choice(self.kind, "depth", self.depth, tuple(BLOCKS))
        check_width(self.kind, self.width)

    def build(self, classes: int, dtype: Any = jnp.float32) -> DeepLabV2:
        """The segmentation net: `module(image, train=...) -> (logits, None)`."""
        return DeepLabV2(classes=classes, depth=self.depth, width=self.width, dtype=dtype)

    def classifier(self, tags: int, dtype: Any = jnp.float32, dropout: float | None = None) -> TagClassifier:
        """The classifier of image tags on the net's trunk; `dropout` of features, None for 0.1."""
        trunk = ResNet(self.depth, width=self.width, caffe=True, dtype=dtype)
        return TagClassifier(backbone=trunk, classes=tags, dropout=0.1 if dropout is None else dropout)
