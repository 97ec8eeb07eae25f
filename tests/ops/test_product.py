"""Products with float32 results against those of float32 operands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.product import dilated_product, float32_product


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_product_and_gradients_are_those_of_rounded_operands(dtype):
    rng = np.random.default_rng(0)
    x, kernel, cotangent = normal(rng, 2, 3, 5, 7).astype(dtype), normal(rng, 7, 4), normal(rng, 2, 3, 5, 4)
    value, backward = jax.vjp(float32_product, x, kernel)
    rounded, rounded_kernel, rounded_cotangent = (
        np.asarray(a.astype(dtype), np.float64) for a in (x, kernel, cotangent)
    )
    of_x, of_kernel = backward(cotangent)
    assert value.dtype == of_kernel.dtype == jnp.float32 and of_x.dtype == dtype
    np.testing.assert_allclose(value, rounded @ rounded_kernel, atol=1e-5)
    np.testing.assert_allclose(of_kernel, np.einsum("bhwc,bhwf->cf", rounded, rounded_cotangent), atol=2e-5)
    expected = rounded_cotangent @ rounded_kernel.T
    np.testing.assert_allclose(
        np.asarray(of_x, np.float64), expected, atol=1e-5, rtol=0 if dtype == jnp.float32 else 4e-3
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [(9, 12), (5, 7), (2, 30), (1, 1)])
def test_dilated_product_equals_a_sum_of_convolutions(size, dtype):
    rng = np.random.default_rng(0)
    x = normal(rng, 2, *size, 6).astype(dtype)
    kernels = {rate: normal(rng, 3, 3, 6, 4) for rate in (1, 6, 12, 24)}

    def plain(x, kernels):
        rounded = {rate: kernel.astype(dtype).astype(jnp.float32) for rate, kernel in kernels.items()}
        return sum(
            jax.lax.conv_general_dilated(
                x.astype(jnp.float32),
                kernel,
                (1, 1),
                ((rate, rate), (rate, rate)),
                rhs_dilation=(rate, rate),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for rate, kernel in rounded.items()
        )

    cotangent = normal(rng, 2, *size, 4)
    results = []
    for function in (dilated_product, plain):
        value, backward = jax.vjp(function, x, kernels)
        assert value.dtype == jnp.float32
        results.append([np.asarray(leaf, np.float32) for leaf in jax.tree.leaves((value, backward(cotangent)))])
    for result, expected in zip(*results, strict=True):
        # The four kernels' middle taps are summed before they are rounded.
        np.testing.assert_allclose(
            result, expected, atol=np.abs(expected).max() * (1e-6 if dtype == jnp.float32 else 2e-2)
        )
