"""DeepLab-v2 (Chen et al., 2018, "DeepLab"): dilated ResNet-101 and a sum of dilated classifiers (ASPP-L).

It is the segmentation net of Hung et al., "Adversarial Learning for Semi-Supervised Semantic Segmentation", and the one
with which the auxiliary-confidence paper compares itself with them. 43,901,068 parameters with 19 classes, 44,048,532
with 21.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.fields import KIND, NetConfig
from scarce_jax.models.resnet import ResNet
from scarce_jax.models.tags import TagClassifier
from scarce_jax.ops.logits import Resized
from scarce_jax.ops.product import dilated_product
from scarce_jax.ranges import Width

RATES = (6, 12, 18, 24)
"""Dilations of the branches of the ASPP. (The code of Hung et al. returns after the first two.)"""

AFFINE_PATTERN = r"bn\d?/(scale|bias)$"
"""Matches scale and bias of batch normalisation, which Hung et al. freeze: `Group(pattern=AFFINE_PATTERN, lr=0)`.

They still normalise by the statistics of each batch in training, as `train=True` does."""

HEAD_PATTERN = r"^aspp_"
"""Matches the classifiers, which have ten times the learning rate: `Group(pattern=HEAD_PATTERN, lr=10)`."""


class Branch(nn.Module):
    """Kernel [3, 3, channels, classes] and bias [classes] of a branch of the ASPP, as those of an `nn.Conv`."""

    classes: int
    channels: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        shape = (3, 3, self.channels, self.classes)
        kernel = self.param("kernel", nn.initializers.normal(0.01), shape, jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros, (self.classes,), jnp.float32)


class DeepLabV2(nn.Module):
    """Image -> class logits at the size of the image.

    Attributes:
      classes: K.
      depth, width: of the ResNet; 101 and 64 in the paper.
      caffe: strides and pooling of the paper's Caffe network (see ResNet). False is the geometry of torchvision's
        weights.
      dtype: dtype of the computation; the sums of the classifiers, parameters and batch statistics are float32.
    """

    classes: int
    depth: int = 101
    width: int = 64
    caffe: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[Resized, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          train: use and update the statistics of this batch.

        Returns:
          float32 logits [B, H, W, K], not yet resized from an eighth of the size (321 -> 41), and None: there is no
          auxiliary head.
        """
        backbone = ResNet(self.depth, width=self.width, caffe=self.caffe, dtype=self.dtype, name="backbone")
        x = backbone(image, train=train)["layer4"]  # [B, h, w, C]
        branches = {rate: Branch(self.classes, x.shape[-1], name=f"aspp_rate{rate}")() for rate in RATES}
        logits = dilated_product(x, {rate: kernel for rate, (kernel, _) in branches.items()})
        logits += sum(bias for _, bias in branches.values())
        return Resized(logits, size=image.shape[1:3], align_corners=True), None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepLabV2Config(NetConfig):
    """DeepLab-v2 (Chen et al., 2018) as Hung et al. use it: dilated ResNet and ASPP, without an auxiliary head.

    Attributes:
      depth: depth of the ResNet; 101 in the paper.
      width: channels of the stem, at least 1; all layers scale with it. 64 in the paper.
    """

    module = DeepLabV2

    kind: Annotated[Literal["deeplabv2"], KIND] = "deeplabv2"
    depth: Literal[18, 34, 50, 101] = 101
    width: Width = 64

    def classifier(self, tags: int, dtype: Any = jnp.float32) -> TagClassifier:
        """A classifier of image tags on the trunk of the net, with dropout 0.1."""
        trunk = ResNet(self.depth, width=self.width, caffe=True, dtype=dtype)
        return TagClassifier(backbone=trunk, classes=tags, dropout=0.1)
