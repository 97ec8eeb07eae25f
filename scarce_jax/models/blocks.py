"""Layers that several networks share."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.resnet import batch_norm, convolution
from scarce_jax.ops.conv import transposed_convolution


class ConvUnit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU: [B, H, W, C] -> [B, H/stride, W/stride, features].

    Sizes are rounded up. Parameters: `conv/kernel`, `bn/scale`, `bn/bias`.
    """

    features: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        options = {"stride": self.stride, "dilation": self.dilation, "dtype": self.dtype}
        x = convolution(self.features, self.kernel, **options, name="conv")(x)
        return nn.relu(batch_norm(train=train, dtype=self.dtype, name="bn")(x))


class TransposedConv(nn.Module):
    """torch's `ConvTranspose2d` with bias: [B, H, W, C] -> [B, stride * H, stride * W, features] at kernel 2 * stride.

    The kernel [k, k, C, features] is torch's weight [C, features, k, k] with its first two axes at the end.
    Initial values have the variance that torch gives a convolution with as many inputs as one pixel of the result
    has here, C * (k / stride)**2, or are normal with standard deviation `deviation`; the bias is zero.
    """

    features: int
    kernel: int
    stride: int
    padding: int
    dtype: Any = jnp.float32
    deviation: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        initial = nn.initializers.variance_scaling(self.stride**2 / 3, "fan_in", "uniform")
        if self.deviation is not None:
            initial = nn.initializers.normal(self.deviation)
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", initial, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = transposed_convolution(x, kernel, stride=self.stride, padding=self.padding)
        return y + bias.astype(self.dtype)


class Upsampler(nn.Module):
    """The 8x8 transposed convolution at stride 4, cropped to an image's size: [B, h, w, C] -> [B, H, W, features].

    Both networks of the auxiliary-confidence method end in it. H <= 4 * h and W <= 4 * w. Computed in float32, since
    its results are logits.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        y = TransposedConv(self.features, 8, 4, 2, name="deconv")(x)
        return y[:, : size[0], : size[1]]


def check_classes(probabilities: jax.Array, classes: int) -> None:
    """Refuses class maps [B, H, W, C] with another number of channels than `classes`.

    Raises:
      ValueError: it is another one.
    """
    if probabilities.shape[-1] != classes:
        raise ValueError(f"class maps have shape {probabilities.shape}; expected {classes} channels, one per class")
