"""Batch normalisation, and linear layers that it follows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.models import tracing
from scarce_jax.ops.batch_norm import normalise
from scarce_jax.ops.bias import add_bias

MOMENTUM = 0.9
"""Weight of the old value in the running averages of batch statistics."""


class BatchNorm(nn.Module):
    """Batch normalisation, then a shortcut and a ReLU where wanted: [B, ..., C] -> [B, ..., C].

    Variables are those of Linen's `BatchNorm`. The running variance is the biased one. PyTorch's is unbiased, larger by
    n / (n - 1) with n = B * H * W. Under `jit` the mean over a sharded batch is global, so no axis name is needed; see
    `tracing` for statistics of parts of a batch.

    Attributes:
      use_running_average: normalise by the running averages; else by the batch, whose statistics update them.
      epsilon: added to the variance.
      dtype: dtype of the result; statistics and parameters are float32.
    """

    use_running_average: bool
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        shortcut: jax.Array | None = None,
        *,
        relu: bool = False,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises features.

        Args:
          x: floating [B, ..., C].
          shortcut: of x's shape; added to the normalised features.
          relu: whether a ReLU follows.
          bias: float32 [C], of the layer that computed x, which has not added it. Statistics of the batch cancel it, so
            that only the running mean depends on it.

        Raises:
          ValueError: the batch cannot be divided into the groups of `tracing`.
        """
        features = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, features, jnp.float32)
        offset = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        if self.use_running_average:
            centred = x.astype(jnp.float32) - (mean.value if bias is None else mean.value - bias)
            y = centred * (scale * jax.lax.rsqrt(variance.value + self.epsilon)) + offset
            return add_bias(y.astype(self.dtype), None, shortcut, relu)
        groups = tracing.current().statistics_groups
        if x.shape[0] % groups:
            raise ValueError(f"batch is {x.shape[0]}; expected a multiple of {groups}, the groups of batch statistics")
        y, *statistics = normalise(x, scale, offset, shortcut, self.epsilon, relu, self.dtype, groups)
        if not self.is_initializing():
            if bias is not None:
                statistics[0] += jax.lax.stop_gradient(bias)
            for average, value in zip((mean, variance), statistics, strict=True):
                average.value = MOMENTUM * average.value + (1 - MOMENTUM) * value
        return y

    def folded(self, bias: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """The normalisation by running averages as a factor of the kernel before it, and a bias: float32 [C] each.

        Args:
          bias: of the layer before, or None.
        """
        stats, params = (functools.partial(self.get_variable, kind) for kind in ("batch_stats", "params"))
        factor = params("scale") * jax.lax.rsqrt(stats("var") + self.epsilon)
        return factor, params("bias") + ((0 if bias is None else bias) - stats("mean")) * factor


def batch_norm(*, train: bool, epsilon: float = 1e-5, dtype: Any = jnp.float32, name: str | None = None) -> BatchNorm:
    """Batch normalisation with PyTorch's defaults."""
    return BatchNorm(use_running_average=not train, epsilon=epsilon, dtype=dtype, name=name)


def with_normalisation(
    multiply: Callable[[jax.Array], jax.Array],
    kernel: jax.Array,
    bias: jax.Array | None,
    dtype: Any,
    bn: BatchNorm | None,
    shortcut: jax.Array | None,
    relu: bool,
) -> jax.Array:
    """A linear layer and what follows it.

    With running averages the normalisation is folded into kernel and bias, so that XLA can fuse all that follows into
    the convolution.

    Args:
      multiply: the layer without its bias, by a kernel in `dtype`.
      kernel: float32 [..., features].
      bias: float32 [features], or None.
      dtype: dtype of the computation.
      bn: batch normalisation after the layer, or None.
      shortcut: added to the result before the ReLU, or None.
      relu: whether a ReLU follows.
    """
    if bn is not None and (bn.is_initializing() or not bn.use_running_average):
        return bn(multiply(kernel.astype(dtype)), shortcut, relu=relu, bias=bias)
    if bn is not None:
        factor, bias = bn.folded(bias)
        kernel = kernel * factor
    return add_bias(multiply(kernel.astype(dtype)), bias, shortcut, relu)
