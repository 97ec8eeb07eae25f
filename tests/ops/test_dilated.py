"""Dilated convolution against XLA's own and the gradients that JAX derives from it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops import dilated

RATES = (1, 2, 3, 4, 12, 18, 24)
SIZES = ((16, 16), (17, 13), (5, 24), (1, 2))


def plain(x, kernel, dilation):
    padding = [(dilation * (side // 2),) * 2 for side in kernel.shape[:2]]
    options = {"rhs_dilation": (dilation, dilation), "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, **options)


def example(size, side, dtype):
    rng = np.random.default_rng(0)
    shapes = (2, *size, 6), (side, side, 6, 5), (2, *size, 5)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@functools.partial(jax.jit, static_argnums=(0, 4))
def value_and_gradients(function, x, kernel, cotangent, dilation):
    y, pull = jax.vjp(lambda x, kernel: function(x, kernel, dilation), x, kernel)
    return y, *pull(cotangent)


def check_equal(ours, expected, tolerance):
    for a, b in zip(ours, expected, strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))


@pytest.mark.parametrize("dilation", RATES)
@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradients(size, dilation):
    for side in (1, 3, 5):
        arrays = example(size, side, jnp.float32)
        results = (value_and_gradients(f, *arrays, dilation) for f in (dilated.dilated_convolution, plain))
        check_equal(*results, 1e-5)


@pytest.mark.parametrize("dilation", RATES)
def test_value_and_gradients_in_bfloat16(dilation):
    arrays = example((17, 14), 3, jnp.bfloat16)
    exact = value_and_gradients(plain, *(x.astype(jnp.float32) for x in arrays), dilation)
    ours = value_and_gradients(dilated.dilated_convolution, *arrays, dilation)
    assert {x.dtype for x in ours} == {jnp.dtype(jnp.bfloat16)}
    check_equal([x.astype(jnp.float32) for x in ours], exact, 1e-2)


@pytest.mark.parametrize("dilation", RATES)
@pytest.mark.parametrize("size", [(25, 25), (26, 31)])
def test_both_forms_of_the_kernels_gradient(size, dilation):
    """The platform at hand takes one of them."""
    x, kernel, cotangent = example(size, 3, jnp.float32)
    expected = value_and_gradients(plain, x, kernel, cotangent, dilation)[2]
    for form in (dilated._gradient_by_remainders, dilated._gradient_by_taps):
        ours = jax.jit(functools.partial(form, kernel=kernel, dilation=dilation))(x, cotangent)
        check_equal([ours], [expected], 1e-5)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="2 x 2; expected odd sides"):
        dilated.dilated_convolution(jnp.zeros((1, 4, 4, 1)), jnp.zeros((2, 2, 1, 1)), 2)
