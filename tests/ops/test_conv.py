"""Transposed convolution against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops import conv
from scarce_jax.ops.logits import Phases


def transposed_convolution(x, kernel, *, stride, padding):
    size = tuple((n - 1) * stride - 2 * padding + len(kernel) for n in x.shape[1:3])
    phases = conv.transposed_phases(x, kernel, stride, x.dtype)
    return Phases(phases, size=size, stride=stride, offset=padding).image()


def slow(x, kernel, stride, padding):
    """Every input pixel adds its kernel to the result."""
    size, features = kernel.shape[0], kernel.shape[3]
    height, width = ((n - 1) * stride + size for n in x.shape[1:3])
    y = np.zeros((x.shape[0], height, width, features))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            rows, columns = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)
            y[:, rows, columns] += np.einsum("bc,klcf->bklf", x[:, i, j], kernel)
    return y[:, padding : height - padding, padding : width - padding]


@pytest.mark.parametrize(
    ("size", "stride", "padding", "channels", "features"),
    [
        (8, 4, 2, 3, 19),  # the inputs are shifted
        (8, 4, 2, 24, 1),  # the products are shifted
        (7, 1, 0, 5, 3),
        (4, 2, 1, 2, 2),
        (5, 3, 1, 2, 3),  # the kernel is not a multiple of the stride
        (2, 3, 0, 2, 1),  # and smaller than it
    ],
)
def test_equals_the_definition(size, stride, padding, channels, features):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 4, channels)), rng.normal(size=(size, size, channels, features))
    expected = slow(x, kernel, stride, padding)
    result = jax.jit(lambda x, k: transposed_convolution(x, k, stride=stride, padding=padding))(
        jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    )
    assert result.shape == (2, 2 * stride - 2 * padding + size, 3 * stride - 2 * padding + size, features)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_kernel_is_in_torchs_orientation():
    # One input pixel of one puts the kernel itself into the result; torch does the same with its weight.
    kernel = jnp.arange(16.0).reshape(4, 4, 1, 1)
    y = transposed_convolution(jnp.ones((1, 1, 1, 1)), kernel, stride=2, padding=1)
    np.testing.assert_array_equal(y[0, :, :, 0], [[5, 6], [9, 10]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("channels", "features"), [(3, 19), (24, 1)])
def test_both_forms_and_their_gradients_are_equal(channels, features, dtype):
    rng = np.random.default_rng(0)
    x, kernel, cotangent = (
        jnp.asarray(rng.normal(size=shape), dtype)
        for shape in ((2, 3, 5, channels), (8, 8, channels, features), (2, 4, 6, 16 * features))
    )
    forms = [lambda x, k, form=form: form(x, k, stride=4, result=dtype) for form in (conv._product, conv._convolution)]
    forms.append(lambda x, k: conv.transposed_phases(x, k, 4, dtype))
    values, gradients = [], []
    for form in forms:
        value, gradient = jax.jit(lambda x, k, c, form=form: (form(x, k), jax.vjp(form, x, k)[1](c)))(
            x, kernel, cotangent
        )
        assert {leaf.dtype for leaf in jax.tree.leaves((value, gradient))} == {jnp.dtype(dtype)}
        values.append(np.asarray(value, np.float32))
        gradients.append([np.asarray(leaf, np.float32) for leaf in gradient])
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == jnp.float32 else {"rtol": 2e-2, "atol": 0.25}
    for other in (1, 2):
        np.testing.assert_allclose(values[other], values[0], **tolerance)
        for one, two in zip(gradients[other], gradients[0], strict=True):
            np.testing.assert_allclose(one, two, **tolerance)


def test_a_float32_result_of_bfloat16_operands_is_not_rounded():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in ((1, 3, 4, 3), (8, 8, 3, 5)))
    exact = conv.transposed_phases(x.astype(jnp.float32), kernel.astype(jnp.float32), 4, jnp.float32)
    result = conv.transposed_phases(x, kernel, 4, jnp.float32)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, exact, atol=1e-5)
    assert np.abs(np.asarray(result.astype(jnp.bfloat16), np.float32) - exact).max() > 1e-3
