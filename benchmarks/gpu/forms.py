"""Other forms of the library's operators, each equal to it up to rounding; `operators.py` times them beside it."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

NAMES = ("NHWC", "HWIO", "NHWC")


def convolution(x: jax.Array, kernel: jax.Array, rate: int) -> jax.Array:
    """Square convolution of odd side, padded to the size of x [B, H, W, C]."""
    pad = ((rate * (kernel.shape[0] // 2),) * 2,) * 2
    kernel = kernel.astype(x.dtype)
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), pad, rhs_dilation=(rate, rate), dimension_numbers=NAMES)


def convolution_in_phases(x: jax.Array, kernel: jax.Array, rate: int) -> jax.Array:
    """A dilated convolution as an ordinary one of the phases: pixels whose row and column leave the same remainders."""
    images, height, width = x.shape[:3]
    phases = jnp.pad(x, ((0, 0), (0, -height % rate), (0, -width % rate), (0, 0)))
    phases = rearrange(phases, "b (h i) (w j) c -> (b i j) h w c", i=rate, j=rate)
    y = rearrange(convolution(phases, kernel, 1), "(b i j) h w c -> b (h i) (w j) c", b=images, i=rate)
    return y[:, :height, :width]


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 1x1 convolution as a matrix product."""
    return jnp.einsum("bhwc,cf->bhwf", x, kernel[0, 0].astype(x.dtype))


class LinenUnit(nn.Module):
    """1x1 convolution, Linen's batch normalisation, ReLU."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(self.features, (1, 1), use_bias=False, dtype=self.dtype)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x))


def max_pool_by_slices(x: jax.Array, pad: tuple[tuple[int, int], tuple[int, int]]) -> jax.Array:
    """3x3 max pooling of stride 2 as maxima of shifted slices."""
    x = jnp.pad(x, ((0, 0), *pad, (0, 0)), constant_values=-jnp.inf)
    for axis in (1, 2):
        end = (x.shape[axis] - 3) // 2 * 2
        slices = (jax.lax.slice_in_dim(x, k, k + end + 1, 2, axis) for k in range(3))
        x = functools.reduce(jnp.maximum, slices)
    return x


class DilatedUpsampler(nn.Module):
    """8x8 transposed convolution of stride 4 as the convolution of an input with zeros between its pixels."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (8, 8, x.shape[-1], self.features))
        x = x.astype(jnp.float32)
        options = {"lhs_dilation": (4, 4), "dimension_numbers": NAMES}
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), ((5, 5), (5, 5)), **options)
        return y[:, : size[0], : size[1]]


def scores(kernel: jax.Array, x: jax.Array) -> jax.Array:
    """A 1x1 convolution in x's dtype, [B, H, W, C] by [C, K], whose sums and results are float32."""
    return jnp.einsum("bhwc,cf->bhwf", x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)


def pyramid(x: jax.Array) -> jax.Array:
    """The averages over 1, 4, 9 and 36 bins as one product: [B, h, w, C] -> [B, 50, C]."""
    height, width = x.shape[1:3]
    rows = []
    for bins in (1, 2, 3, 6):
        for i, j in itertools.product(range(bins), repeat=2):
            share = np.zeros((height, width), np.float32)
            top, left = i * height // bins, j * width // bins
            share[top : -(-(i + 1) * height // bins), left : -(-(j + 1) * width // bins)] = 1
            rows.append(share.ravel() / share.sum())
    weights = jnp.asarray(np.stack(rows), x.dtype)
    flat = rearrange(x, "b h w c -> b (h w) c")
    return jnp.einsum("np,bpc->bnc", weights, flat, preferred_element_type=jnp.float32).astype(x.dtype)


def confusion(predicted: jax.Array, truth: jax.Array, classes: int) -> jax.Array:
    """Counts of classes as a product of one-hot labels, [K, K + 1]; sums of a row of pixels are exact in float32."""
    predicted, truth = (rearrange(x, "... h w -> (... h) w") for x in (predicted, truth))
    known = jnp.where(predicted < classes, predicted, classes)
    rows = jax.nn.one_hot(truth, classes, dtype=jnp.bfloat16)
    columns = jax.nn.one_hot(known, classes + 1, dtype=jnp.bfloat16)
    counts = jnp.einsum("npk,npc->nkc", rows, columns, preferred_element_type=jnp.float32)
    return counts.astype(jnp.int32).sum(0)
