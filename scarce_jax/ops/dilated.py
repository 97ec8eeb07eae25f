"""Dilated convolution, with a written-out gradient of its kernel."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
from einops import rearrange

from scarce_jax.ops.vary import vary_alike


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
    if dilation == 1 or kernel.shape[:2] == (1, 1):
        return _convolve(x, kernel, 1)
    return _dilated(*vary_alike(x, kernel), dilation)


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
