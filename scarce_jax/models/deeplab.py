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

from scarce_jax.models.backbones import Backbone
from scarce_jax.models.fields import KIND, BackboneNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.logits import Logits, from_patches
from scarce_jax.ops.product import dilated_product

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
      backbone: encoder, as `BackboneConfig` describes it.
      patch: see `BackboneConfig`.
      dtype: dtype of the computation; the sums of the classifiers, parameters and batch statistics are float32.
    """

    classes: int
    backbone: nn.Module
    patch: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[Logits, None]:
        """Segments images.

        Args:
          image: float [B, H, W, 3], normalised RGB, of any size.
          train: use and update the statistics of this batch.

        Returns:
          float32 logits [B, H, W, K], not yet resized from the size of the features (321 -> 41 at stride 8), and None:
          there is no auxiliary head.
        """
        *_, x = self.backbone(image, train=train).values()  # [B, h, w, C]
        branches = {rate: Branch(self.classes, x.shape[-1], name=f"aspp_rate{rate}")() for rate in RATES}
        logits = dilated_product(x, {rate: kernel for rate, (kernel, _) in branches.items()})
        logits += sum(bias for _, bias in branches.values())
        return from_patches(logits, image.shape[1:3], self.patch), None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepLabV2Config(BackboneNetConfig):
    """DeepLab-v2 (Chen et al., 2018) as Hung et al. use it: dilated backbone and ASPP, without an auxiliary head.

    Attributes:
      backbone: the backbone, chosen by its kind, at stride 8. In the paper it is a ResNet of 101 layers with Caffe's
        geometry; weights from elsewhere mostly need `--STAGE.net.backbone.geometry torchvision`.
    """

    module = DeepLabV2

    kind: Annotated[Literal["deeplabv2"], KIND] = "deeplabv2"
    backbone: Backbone = ResNetConfig(depth=101, geometry="caffe")
