"""Products whose operands may be bfloat16 and whose sums and results are float32: the last layers of nets."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from scarce_jax.ops.vary import vary_alike


def float32_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel, with the kernel rounded to x's dtype.

    The gradient of the result is rounded to x's dtype too, as that of any layer that computes in it. Its products have
    float32 sums, and the gradient of the kernel is not rounded.

    Args:
      x: floating [..., C].
      kernel: float32 [C, F].

    Returns:
      float32 [..., F].
    """
    return _float32_product(*vary_alike(x, kernel))


@jax.custom_vjp
def _float32_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)


def _forward(x, kernel):
    return _float32_product(x, kernel), (x, kernel)


def _backward(operands, cotangent):
    x, kernel = operands
    cotangent = cotangent.astype(x.dtype)
    of_x = jnp.einsum("...f,cf->...c", cotangent, kernel.astype(x.dtype), preferred_element_type=x.dtype)
    return of_x, jnp.einsum("...c,...f->cf", x, cotangent, preferred_element_type=jnp.float32)


_float32_product.defvjp(_forward, _backward)


def dilated_product(x: jax.Array, kernels: Mapping[int, jax.Array]) -> jax.Array:
    """Sum of dilated 3x3 convolutions with few outputs, as one product and a shift for each tap.

    Taps that read beyond the border at every place are left out.

    Args:
      x: floating [B, h, w, C].
      kernels: dilation -> float32 [3, 3, C, F].

    Returns:
      float32 [B, h, w, F]; see `float32_product` for what is rounded.
    """
    height, width = x.shape[1:3]
    taps = {(0, 0): sum(kernel[1, 1] for kernel in kernels.values())}
    for rate, kernel in kernels.items():
        for row in range(3):
            for column in range(3):
                shift = (row - 1) * rate, (column - 1) * rate
                if shift != (0, 0) and abs(shift[0]) < height and abs(shift[1]) < width:
                    taps[shift] = kernel[row, column]
    products = float32_product(x, jnp.concatenate(list(taps.values()), -1))
    parts = jnp.split(products, len(taps), axis=-1)
    return sum(_shifted(part, *shift) for part, shift in zip(parts, taps, strict=True))


def _shifted(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """[b, i, j] is x[b, i + rows, j + columns], zero beyond the border."""
    zero = jnp.zeros((), x.dtype)
    return jax.lax.pad(x, zero, ((0, 0, 0), (-rows, rows, 0), (-columns, columns, 0), (0, 0, 0)))
