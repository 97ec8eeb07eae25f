"""IRNet (Ahn et al., 2019, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations").

Two branches on the features of a frozen ResNet: the boundaries between classes, and a displacement field that points
from each pixel to the centre of its instance. The branches have 1,394,529 parameters on a ResNet-50 of width 64.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.heads import Head
from scarce_jax.models.layers import uniform_fan_in
from scarce_jax.models.resnet import ResNet, ResNetConfig
from scarce_jax.ops.resize import resize_bilinear

TAPS = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Outputs of the encoder that the branches read."""

EDGE_PATTERN, DISPLACEMENT_PATTERN = r"^edge", r"^displacement"
"""Match the parameters of each branch; the displacement's rate is ten times the boundaries'."""


def encoder(backbone: ResNetConfig, dtype: Any = jnp.float32) -> ResNet:
    """The ResNet of IRNet: layer4 keeps the size of layer3, H/16, and nothing is dilated."""
    return backbone.build(16, dtype).clone(dilations=(1, 1, 1, 1))


class Tap(nn.Module):
    """1x1 convolution and group normalisation of an encoder's features, enlarged, ReLU.

    [B, h, w, C] -> [B, scale * h, scale * w, features], cropped to `size`.
    """

    features: int
    groups: int
    scale: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        x = nn.Conv(self.features, (1, 1), use_bias=False, kernel_init=uniform_fan_in, dtype=self.dtype, name="conv")(x)
        x = nn.GroupNorm(self.groups, epsilon=1e-5, dtype=self.dtype, name="norm")(x)
        # Before the ReLU, as in the authors' code.
        x = resize_bilinear(x, (self.scale * x.shape[1], self.scale * x.shape[2]), align_corners=False)
        return nn.relu(x)[:, : size[0], : size[1]]


class IRNet(nn.Module):
    """Features of a ResNet -> boundary logits and displacements at a quarter of the image's size.

    Layers, their groups and sizes are those of the authors' code (jiwoon-ahn/irn), without the mean shift of the
    displacements, which is no parameter.

    Attributes:
      width: of the ResNet: 64 in the paper. Every layer of the branches scales with it; a positive multiple of 16.
      dtype: of the computation; the sums of the last convolutions and the parameters are float32.
    """

    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, *layers: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Predicts boundaries and displacements.

        Args:
          layers: the outputs of `encoder` that TAPS names, floating [B, h, w, C], h = H/4, H/4, H/8, H/16, H/16.
          train: without effect: there are no batch statistics and no dropout.

        Returns:
          float32 boundary logits [B, H/4, W/4], and displacements [B, H/4, W/4, 2] in pixels of this grid: (rows,
          columns).
        """
        stem, layer1, layer2, layer3, layer4 = layers
        quarter, eighth = layer1.shape[1:3], layer2.shape[1:3]

        def tap(name: str, features: int, groups: int, scale: int, x: jax.Array, size: tuple[int, int]) -> jax.Array:
            return Tap(features * self.width // 64, groups, scale, self.dtype, name=name)(x, size)

        edges = [
            tap(f"edge{k}", 32, 4, scale, x, quarter)
            for k, (scale, x) in enumerate(zip((1, 1, 2, 4, 4), layers, strict=True), start=1)
        ]
        edge = Head(1, uniform_fan_in, name="edge_head")(jnp.concatenate(edges, -1))

        fine = [
            tap("displacement1", 64, 8, 1, stem, quarter),
            tap("displacement2", 128, 16, 1, layer1, quarter),
        ]
        coarse = [
            tap("displacement3", 256, 16, 1, layer2, eighth),
            tap("displacement4", 256, 16, 2, layer3, eighth),
            tap("displacement5", 256, 16, 2, layer4, eighth),
        ]
        fine.append(tap("displacement6", 256, 16, 2, jnp.concatenate(coarse, -1), quarter))
        x = tap("displacement7", 256, 16, 1, jnp.concatenate(fine, -1), quarter)
        displacement = Head(2, uniform_fan_in, use_bias=False, name="displacement_head")(x)
        return edge[..., 0], displacement
