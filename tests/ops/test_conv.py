"""Transposed convolution against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.conv import transposed_convolution


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
