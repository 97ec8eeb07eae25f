"""Layers that several networks share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models.batch_norm import BatchNorm, batch_norm, with_normalisation
from scarce_jax.ops.conv import transposed_phases
from scarce_jax.ops.dilated import dilated_convolution
from scarce_jax.ops.logits import Phases

he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Initial values of a convolution before batch normalisation, as in torchvision."""

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Initial values of a convolution without batch normalisation, as in PyTorch: of a classifier, for example."""


class Convolution(nn.Module):
    """Square convolution with Linen's parameters: [B, H, W, C] -> [B, H', W', features].

    Attributes:
      kernel: side of the window.
      padding: rows and columns of zeros on every side. None is dilation * (kernel - 1) / 2 rounded down, as in PyTorch.
        Linen's "SAME" pads a strided convolution of an even size on the far side only, which would shift what
        torchvision's weights see.
      dtype: dtype of the computation; parameters are float32.
    """

    features: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: int | None = None
    use_bias: bool = False
    kernel_init: Callable = he_normal_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        bn: BatchNorm | None = None,
        shortcut: jax.Array | None = None,
        *,
        relu: bool = False,
    ) -> jax.Array:
        """Convolves features, normalises them, adds a shortcut and applies a ReLU; all but the first where wanted."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32) if self.use_bias else None
        multiply = functools.partial(self._convolve, x.astype(self.dtype))
        return with_normalisation(multiply, kernel, bias, self.dtype, bn, shortcut, relu)

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        if self.dilation > 1 and self.stride == 1 and self.padding is None and self.kernel % 2:
            return dilated_convolution(x, kernel, self.dilation)
        pad = self.dilation * (self.kernel - 1) // 2 if self.padding is None else self.padding
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            [(pad, pad)] * 2,
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class ConvUnit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU: [B, H, W, C] -> [B, H/stride, W/stride, features].

    The output size is rounded up.
    """

    features: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        options = {"stride": self.stride, "dilation": self.dilation, "dtype": self.dtype}
        layer = Convolution(self.features, self.kernel, **options, name="conv")
        return layer(x, batch_norm(train=train, dtype=self.dtype, name="bn"), relu=True)


class TransposedConv(nn.Module):
    """PyTorch's `ConvTranspose2d` with bias: [B, H, W, C] -> [B, H', W', features].

    H' is (H - 1) * stride - 2 * padding + k for a kernel of side k. The kernel is [k, k, C, features], PyTorch's weight
    [C, features, k, k] with its first two axes at the end. Its initial values have the variance of a PyTorch
    convolution with as many inputs as contribute to one pixel of the result, C * (k / stride)**2. The bias is zero.

    Attributes:
      dtype: of the operands and their gradients; sums and the gradient of the bias are float32.
      result: dtype of the result; None is `dtype`.
      deviation: if not None, standard deviation of normally distributed initial values.
    """

    features: int
    kernel: int
    stride: int
    padding: int
    dtype: Any = jnp.float32
    result: Any = None
    deviation: float | None = None

    def __call__(self, x: jax.Array) -> jax.Array:
        sides = ((length - 1) * self.stride - 2 * self.padding + self.kernel for length in x.shape[1:3])
        return self.phases(x, tuple(sides)).image()

    @nn.compact
    def phases(self, x: jax.Array, size: tuple[int, int]) -> Phases:
        """The first (H, W) pixels of the result, before depth to space."""
        initial = nn.initializers.variance_scaling(self.stride**2 / 3, "fan_in", "uniform")
        if self.deviation is not None:
            initial = nn.initializers.normal(self.deviation)
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", initial, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        result = self.dtype if self.result is None else self.result
        y = transposed_phases(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, result)
        y = (y.astype(jnp.float32) + jnp.tile(bias, self.stride**2)).astype(result)
        return Phases(y, size=size, stride=self.stride, offset=self.padding)


class Upsampler(nn.Module):
    """8x8 transposed convolution at stride 4, cropped to `size`: [B, h, w, C] -> logits [B, *size, features].

    It is the last layer of both nets of the auxiliary-confidence paper. `size` is at most (4 * h, 4 * w).

    Attributes:
      dtype, result: see TransposedConv.
    """

    features: int
    dtype: Any = jnp.float32
    result: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int]) -> Phases:
        layer = TransposedConv(self.features, 8, 4, 2, dtype=self.dtype, result=self.result, name="deconv")
        return layer.phases(x, size)


def check_classes(probabilities: jax.Array, classes: int) -> None:
    """Raises ValueError unless the class maps [B, H, W, C] have one channel per class."""
    if probabilities.shape[-1] != classes:
        raise ValueError(f"class maps have shape {probabilities.shape}; expected {classes} channels, one per class")
