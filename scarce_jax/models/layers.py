"""Layers that several networks share."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.ops.conv import transposed_convolution

he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""torchvision's initial values of a convolution that batch normalisation follows."""

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""torch's initial values of a convolution: of classifiers and of networks without batch normalisation."""

MOMENTUM = 0.9
"""Share of the old value in a running average of batch statistics."""


def convolution(
    features: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    use_bias: bool = False,
    dtype: Any = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """Square convolution, by default without bias, padded by dilation * (kernel - 1) / 2 on every side as in torch.

    Linen's "SAME" pads a strided convolution of an even size on the far side only, which would shift what
    torchvision's weights see.
    """
    pad = dilation * (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        kernel_dilation=(dilation, dilation),
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=he_normal_fan_out,
        name=name,
    )


def batch_norm(*, train: bool, dtype: Any = jnp.float32, name: str | None = None) -> nn.BatchNorm:
    """Batch normalisation with torch's defaults; statistics and parameters in float32, result in `dtype`.

    Under `jit` the mean over a sharded batch is global, so there is no axis name. The running variance is
    the biased one (torch keeps the unbiased one: a factor n / (n - 1) with n = B*H*W values).
    """
    return nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=1e-5, dtype=dtype, name=name)


def max_pool(x: jax.Array, window: int, stride: int, padding: tuple[tuple[int, int], tuple[int, int]]) -> jax.Array:
    """Maximum over square windows: [B, H, W, C] -> [B, (H + before + after - window) // stride + 1, .., C].

    `padding` is ((before, after) of the rows, (before, after) of the columns), with -inf.

    Maxima of shifted slices instead of `lax.reduce_window`: the gradient is then elementwise, where that of
    a window reduction is a select-and-scatter (7 times slower on XLA's CPU backend). Equal entries share
    the gradient; after a ReLU the only likely ties are zeros, through which no gradient passes anyway.
    """
    if any(map(any, padding)):
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    for axis in (1, 2):
        reach = x.shape[axis] - window
        reach += 1 - reach % stride
        slices = (jax.lax.slice_in_dim(x, offset, offset + reach, stride, axis) for offset in range(window))
        x = functools.reduce(jnp.maximum, slices)
    return x


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
