"""Dilated convolution, and transposed convolution with PyTorch's conventions."""

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

    With a wide input it is a matrix product over shifted inputs, on a GPU a convolution. The gradient of the kernel
    of such a convolution took 22 times as long as that of the product on two CPU cores. On a GPU the input is padded
    before the convolution. If a convolution pads by as much as its window reaches, XLA computes the gradient of its
    kernel as a convolution with a window as large as the image: 7.2 ms on an H200 for images of 512 x 1024 pixels, in
    place of 0.1 ms that its bytes need.

    Args:
      x: floating [B, h, w, C].
      kernel: floating [k, k, C, F], in x's dtype.
      stride: number of phases along an axis.
      result: dtype of the result; there is a gradient if it is x's. Sums are float32.

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
    return sum(
        jnp.pad(product, ((0, 0), (t, reach - 1 - t), (u, reach - 1 - u), (0, 0)))
        for product, (t, u) in zip(products, offsets, strict=True)
    )


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


def dilated_convolution(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Dilated convolution at stride 1 that keeps the size of the image: zeros pad it by dilation * (k // 2).

    The gradient of the kernel is written out. XLA derives it as a convolution whose window is as large as the image,
    for which cuDNN has no fast algorithm on a GPU (see benchmarks/xla_dilated_kernel_gradient.py). Here the pixels
    whose rows and columns have the same remainders by the dilation become an image of their own, and the gradient is
    that of a convolution without dilation over all these images.

    On a CPU, where much of what the taps read is padding, it is one matrix product per tap, which leaves the padding
    out. For 8 images of 16 x 16 pixels, 128 -> 64 channels and dilation 12, on one core, the products take 2.1 ms,
    XLA's own gradient 5.2 ms and the images of equal remainders 11.5 ms. For 4 images, 256 -> 256 channels and dilation
    4 these are 13.4, 16.0 and 14.9 ms, but the products need three times the memory.

    Args:
      x: floating [B, H, W, C].
      kernel: floating [k, k, C, F], in x's dtype, k odd.
      dilation: distance of the taps in pixels, at least 1.

    Returns:
      [B, H, W, F]

    Raises:
      ValueError: the side of the kernel is even.
    """
    sides = kernel.shape[:2]
    if not all(side % 2 for side in sides):
        raise ValueError(f"kernel of a dilated convolution is {sides[0]} x {sides[1]}; expected odd sides")
    # Taps that reach beyond the image from each of its pixels read padding alone.
    unused = [max(0, side // 2 - (size - 1) // dilation) for side, size in zip(sides, x.shape[1:3], strict=True)]
    rows, columns = (slice(cut, side - cut) for side, cut in zip(sides, unused, strict=True))
    kernel = kernel[rows, columns]
    return _convolve(x, kernel, 1) if dilation == 1 or kernel.shape[:2] == (1, 1) else _dilated(x, kernel, dilation)


def _convolve(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    padding = [(dilation * (side // 2),) * 2 for side in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, rhs_dilation=(dilation, dilation), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


_dilated = jax.custom_vjp(_convolve, nondiff_argnums=(2,))


def _dilated_backward(
    dilation: int, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    (by_x,) = jax.linear_transpose(lambda x: _convolve(x, kernel, dilation), x)(cotangent)
    by_remainders, by_taps = (
        functools.partial(form, kernel=kernel, dilation=dilation)
        for form in (_gradient_by_remainders, _gradient_by_taps)
    )
    if 4 * dilation <= min(x.shape[1:3]):
        return by_x, by_remainders(x, cotangent)
    return by_x, jax.lax.platform_dependent(x, cotangent, cpu=by_taps, default=by_remainders)


_dilated.defvjp(lambda x, kernel, dilation: (_convolve(x, kernel, dilation), (x, kernel)), _dilated_backward)


def _gradient_by_remainders(x: jax.Array, cotangent: jax.Array, *, kernel: jax.Array, dilation: int) -> jax.Array:
    """Gradient of the kernel over images of pixels with equal remainders, padded at their ends."""
    height, width = x.shape[1:3]
    # Beyond the size of the image every remainder has one pixel.
    i, j = min(dilation, height), min(dilation, width)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, -height % i), (0, -width % j), (0, 0)))
        return rearrange(x, "b (h i) (w j) c -> (b i j) h w c", i=i, j=j)

    images = split(x)
    (gradient,) = jax.linear_transpose(lambda kernel: _convolve(images, kernel, 1), kernel)(split(cotangent))
    return gradient


def _gradient_by_taps(x: jax.Array, cotangent: jax.Array, *, kernel: jax.Array, dilation: int) -> jax.Array:
    """Gradient of the kernel as one matrix product per tap, over the pixels whose tap lies in the image."""
    height, width = x.shape[1:3]
    products = []
    for row, column in itertools.product(*map(range, kernel.shape[:2])):
        # The tap of pixel (i, j) reads pixel (i + down, j + right).
        down, right = (dilation * (place - side // 2) for place, side in zip((row, column), kernel.shape, strict=False))
        read = x[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        written = cotangent[:, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
        products.append(jnp.einsum("bhwc,bhwf->cf", read, written, preferred_element_type=jnp.float32))
    return jnp.stack(products).reshape(kernel.shape).astype(kernel.dtype)
