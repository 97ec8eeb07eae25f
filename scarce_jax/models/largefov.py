"""DeepLab-LargeFOV (Chen et al., 2015, "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
CRFs", its variant with 3x3 fc6, dilation 12 and 1024 channels).

The segmentation network and, with one output, the L-Net of the label-and-prediction-transfer paper. 20,505,429
parameters with 21 classes, 20,484,929 with one output.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.cam import CamClassifier
from scarce_jax.models.fields import KIND, check_rate, check_vgg, check_width
from scarce_jax.models.layers import convolution
from scarce_jax.models.vgg import CONVOLUTIONS, Pool, VGG16Trunk

POOLS = (Pool(3, 2, 1), Pool(3, 2, 1), Pool(3, 2, 1), Pool(3, 1, 1), Pool(3, 1, 1))
"""Three that halve the image, rounded up, and two that keep its size."""

HEAD_PATTERN = r"^fc8"
"""Matches the classifier, whose learning rate is ten times the others': `Group(pattern=HEAD_PATTERN, lr=10)`."""

BIAS_PATTERN = r"/bias$"
"""Matches biases, which have twice the learning rate and no weight decay; HEAD_PATTERN + BIAS_PATTERN matches fc8's."""


class LargeFOV(nn.Module):
    """Image -> class logits at an eighth of its size; with one class, the L-Net's logit of "foreground".

    The VGG-16 with pool4 and pool5 at stride 1 and conv5 dilated by 2, a 3x3 average (the border's zeros count, as in
    Caffe), fc6 (3x3 dilated by 12), fc7 and fc8 (1x1). Feature (i, j) lies at pixel (8 * i, 8 * j): the paper's loss is
    taken there, against every eighth pixel of the label, and for a side of 8 * n + 1 a bilinear resize with aligned
    corners puts the logits where they belong.

    fc8 starts from N(0, 0.01) as in the paper's files. fc6 and fc7 start from He's values (or VGG's, see `weights`):
    at smaller widths N(0, 0.01) would shrink the signal to nothing.

    Attributes:
      classes: K; 1 for the L-Net.
      width: of the trunk (see VGG16Trunk); fc6 and fc7 have 16 times as many channels. The paper's is 64.
      batch_norm: in the trunk, as in torchvision's `vgg16_bn`; the paper's net has none.
      dropout: rate after fc6 and fc7.
      convolutions: of the trunk's groups.
      dtype: of the computation up to fc8, which like parameters and batch statistics is float32.
    """

    classes: int
    width: int = 64
    batch_norm: bool = False
    dropout: float = 0.5
    convolutions: tuple[int, ...] = CONVOLUTIONS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB; any H and W.
          train: whether batch statistics are used and updated, and features dropped (rng "dropout").

        Returns:
          float32 logits [B, ceil(H/8), ceil(W/8), K] (321 -> 41), and None: there is no auxiliary head.
        """
        options = {"dilation": 2, "dtype": self.dtype, "name": "backbone"}
        trunk = VGG16Trunk(self.width, self.batch_norm, POOLS, self.convolutions, **options)
        x, _ = trunk(image, train=train)  # [B, H/8, W/8, 8 * width]
        x = nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=True)
        for name, kernel, dilation in (("fc6", 3, 12), ("fc7", 1, 1)):
            options = {"dilation": dilation, "use_bias": True, "dtype": self.dtype}
            x = nn.relu(convolution(16 * self.width, kernel, **options, name=name)(x))
            x = nn.Dropout(self.dropout, name=f"{name}_dropout")(x, deterministic=not train)
        head = nn.Conv(self.classes, (1, 1), kernel_init=nn.initializers.normal(0.01), name="fc8")
        return head(x.astype(jnp.float32)), None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargeFOVConfig:
    """DeepLab-LargeFOV (Chen et al., 2015) on VGG-16; logits are an eighth of the image's size.

    Attributes:
      width: channels of VGG-16's conv1, at least 1; every layer scales with it. 64 in the paper.
      batch_norm: batch normalisation in VGG-16, for training from scratch; the paper's net has none.
      dropout: rate in 0..1 after fc6 and fc7, and of a tag classifier's features. 0.5 in the paper.
      convolutions: of VGG-16's five groups, at least 1 each.
    """

    kind: Annotated[Literal["largefov"], KIND] = "largefov"
    width: int = 64
    batch_norm: bool = False
    dropout: float = 0.5
    convolutions: tuple[int, int, int, int, int] = CONVOLUTIONS
    full_size: ClassVar[bool] = False

    def __post_init__(self):
        check_width(self.kind, self.width)
        check_rate(self.kind, self.dropout)
        check_vgg(self.kind, self.convolutions)

    def build(self, classes: int, dtype: Any = jnp.float32) -> LargeFOV:
        """The segmentation net: `module(image, train=...) -> (logits, None)`."""
        return LargeFOV(classes, self.width, self.batch_norm, self.dropout, self.convolutions, dtype)

    def classifier(self, tags: int, dtype: Any = jnp.float32, dropout: float | None = None) -> CamClassifier:
        """The classifier of image tags on the net's trunk; `dropout` of features, None for the net's own rate."""
        rate = self.dropout if dropout is None else dropout
        return CamClassifier(tags, self.width, self.batch_norm, rate, self.convolutions, dtype=dtype)
