"""DeepLab-LargeFOV (Chen et al., 2015, "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
CRFs"), the variant with 1024 channels and a 3x3 fc6 of dilation 12.

It is the segmentation net of the label-and-prediction-transfer paper and, with one output, its L-Net. 20,505,429
parameters with 21 classes, 20,484,929 with one output.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.backbones import Backbone
from scarce_jax.models.cam_vgg import CamClassifier, cam_classifier
from scarce_jax.models.fields import KIND, BackboneNetConfig
from scarce_jax.models.heads import Head
from scarce_jax.models.layers import Convolution
from scarce_jax.models.tracing import entering_head
from scarce_jax.models.vgg import Pool, VGGConfig
from scarce_jax.ops.logits import Logits, from_patches
from scarce_jax.ranges import BelowOne

POOLS = (Pool(3, 2, 1), Pool(3, 2, 1), Pool(3, 2, 1), Pool(3, 1, 1), Pool(3, 1, 1))
"""Poolings of VGG-16 in this net: three halve the image, rounded up, and two keep its size."""

HEAD_PATTERN = r"^fc8"
"""Matches the classifier, which has ten times the learning rate: `Group(pattern=HEAD_PATTERN, lr=10)`."""


class LargeFOV(nn.Module):
    """Image -> class logits at an eighth of its size. With one class it is the L-Net, and the logit is of "foreground".

    The backbone is a VGG-16 with pool4 and pool5 at stride 1 and conv5 dilated by 2, or another one of stride 8. A 3x3
    average follows, in which the zeros of the border count, as in Caffe. Then come fc6 (3x3, dilated by 12), fc7 and
    fc8 (1x1).

    Feature (i, j) lies at pixel (8 * i, 8 * j). The loss of the paper compares it with every eighth pixel of the label.
    For a side of 8 * n + 1 pixels a bilinear resize with aligned corners puts the logits at the right places.

    fc8 starts from N(0, 0.01), as in the authors' files. fc6 and fc7 start from He's values, or from VGG's weights (see
    `weights`), because N(0, 0.01) would make the signal vanish at smaller widths.

    Attributes:
      classes: K; 1 for the L-Net.
      backbone: see `BackboneConfig`; its last features are read.
      width: `head_width` of the backbone. fc6 and fc7 have 16 times as many channels. 64 in the paper.
      dropout: rate of the dropout after fc6 and fc7.
      patch: see `BackboneConfig`.
      dtype: dtype of the computation; the logits are float32, as are the sums of fc8, parameters and batch statistics.
    """

    classes: int
    backbone: nn.Module
    width: int = 64
    dropout: float = 0.5
    patch: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[Logits, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          train: use and update the statistics of this batch, and drop features (random key "dropout").

        Returns:
          float32 logits [B, ceil(H/8), ceil(W/8), K] (321 -> 41), or [B, H, W, K] of a backbone of patches; and None
          for the auxiliary head.
        """
        *_, x = entering_head(self.backbone(image, train=train)).values()  # [B, H/8, W/8, 8 * width] of VGG-16
        x = nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=True)
        for name, kernel, dilation in (("fc6", 3, 12), ("fc7", 1, 1)):
            options = {"dilation": dilation, "use_bias": True, "dtype": self.dtype}
            x = Convolution(16 * self.width, kernel, **options, name=name)(x, relu=True)
            x = nn.Dropout(self.dropout, name=f"{name}_dropout")(x, deterministic=not train)
        logits = Head(self.classes, nn.initializers.normal(0.01), name="fc8")(x)
        return from_patches(logits, image.shape[1:3], self.patch) if self.patch > 1 else logits, None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargeFOVConfig(BackboneNetConfig):
    """DeepLab-LargeFOV (Chen et al., 2015) on VGG-16 or another backbone. Its logits are smaller than the image.

    Attributes:
      backbone: the backbone, chosen by its kind.
      dropout: rate of the dropout, below 1, after fc6 and fc7. 0.5 in the paper.
    """

    module = LargeFOV
    full_size = False

    kind: Annotated[Literal["largefov"], KIND] = "largefov"
    backbone: Backbone = VGGConfig()
    dropout: BelowOne = 0.5

    def trunk(self, dtype: Any = jnp.float32) -> nn.Module:
        """The module of the backbone; that of VGG-16 has the poolings of this net."""
        if isinstance(self.backbone, VGGConfig):
            return self.backbone.with_pools(POOLS, dilation=2, dtype=dtype)
        return super().trunk(dtype)

    def classifier(self, tags: int, dtype: Any = jnp.float32) -> CamClassifier:
        """A classifier of image tags on the backbone of the net."""
        return cam_classifier(self.backbone, tags, self.dropout, dtype)
