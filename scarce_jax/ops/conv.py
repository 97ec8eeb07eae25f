"""Transposed convolution with PyTorch's conventions."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange


def transposed_phases(x: jax.Array, kernel: jax.Array, stride: int, result: Any) -> jax.Array:
    """Transposed convolution before depth to space, without padding.

    y[stride * i + k] += x[i] @ kernel[k] along both axes, as in PyTorch's `conv_transpose2d` without groups, dilation,
    bias or output padding. The kernel has PyTorch's orientation: its weight [C, F, k, k] becomes this one by moving its
    first two axes to the end, without a flip. Pixel (stride * i + p, stride * j + q) of y has the channels from
    (stride * p + q) * F of place (i, j). The zeros between the pixels of a dilated input are never multiplied.

    It is one matrix product over shifted inputs or with shifted results, whichever are smaller. In place of shifted
    inputs a GPU has a convolution. On two CPU cores the gradients took about 0.4 s as a product, at k = 8, stride 4,
    96 -> 19 channels, 64 x 128 pixels and two images, and 4.4 s as a convolution, nearly all of it for the kernel.

    The convolution's input is padded before it. If a convolution pads by as much as its window reaches, XLA computes
    the gradient of its kernel as a convolution with a window as large as the image. That took 7.2 ms on an H200 for
    images of 512 x 1024 pixels, where its bytes would need 0.1 ms (`benchmarks/results/gpu`).

    Args:
      x: floating [B, h, w, C].
      kernel: floating [k, k, C, F], in x's dtype.
      stride: number of phases along an axis.
      result: dtype of the result; there is a gradient if it is x's. Sums are float32; shifted results are rounded
        to it before.

    Returns:
      [B, h + r - 1, w + r - 1, stride**2 * F], r = ceil(k / stride).
    """
    product, convolution = (functools.partial(form, stride=stride, result=result) for form in (_product, _convolution))
    return jax.lax.platform_dependent(x, kernel, cuda=convolution, rocm=convolution, default=product)


def _product(x: jax.Array, kernel: jax.Array, *, stride: int, result: Any) -> jax.Array:
    kernel = _by_offset(kernel, stride)  # [r, r, C, stride**2 * F]
    reach = len(kernel)
    offsets = list(itertools.product(range(reach), repeat=2))
    rows, columns = (length + reach - 1 for length in x.shape[1:3])
    if _shifts_inputs(x, kernel):
        x = _padded(x, reach)
        shifted = [x[:, reach - 1 - t :, reach - 1 - u :][:, :rows, :columns] for t, u in offsets]
        kernel = rearrange(kernel, "t u c f -> (t u c) f")
        return jnp.einsum("bhwc,cf->bhwf", jnp.concatenate(shifted, -1), kernel, preferred_element_type=result)
    kernel = rearrange(kernel, "t u c f -> (t u) c f")
    products = jnp.einsum("bhwc,tcf->tbhwf", x, kernel, preferred_element_type=result)
    total = sum(
        jnp.pad(product.astype(jnp.float32), ((0, 0), (t, reach - 1 - t), (u, reach - 1 - u), (0, 0)))
        for product, (t, u) in zip(products, offsets, strict=True)
    )
    return total.astype(result)


def _convolution(x: jax.Array, kernel: jax.Array, *, stride: int, result: Any) -> jax.Array:
    by_offset = _by_offset(kernel, stride)
    if not _shifts_inputs(x, by_offset):
        return _product(x, kernel, stride=stride, result=result)
    return jax.lax.conv_general_dilated(
        jax.lax.optimization_barrier(_padded(x, len(by_offset))),
        by_offset[::-1, ::-1],
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=result,
    )


def _by_offset(kernel: jax.Array, stride: int) -> jax.Array:
    """Place m of a phase sees x[m - t] through [t], t < r: [k, k, C, F] -> [r, r, C, stride**2 * F]."""
    extra = -len(kernel) % stride
    kernel = jnp.pad(kernel, ((0, extra), (0, extra), (0, 0), (0, 0)))
    return rearrange(kernel, "(t p) (u q) c f -> t u c (p q f)", p=stride, q=stride)


def _shifts_inputs(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether the inputs are smaller than the products. A product has all its shifted arrays in memory at once."""
    _, height, width, channels = x.shape
    reach, features = len(kernel), kernel.shape[-1]
    return channels * (height + reach - 1) * (width + reach - 1) < features * height * width


def _padded(x: jax.Array, reach: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (reach - 1, reach - 1), (reach - 1, reach - 1), (0, 0)))
