"""Bias, shortcut and ReLU against what JAX derives, and the sum of a bias's gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.bias import add_bias


@pytest.mark.parametrize(("biased", "joined", "relu"), list(itertools.product((False, True), repeat=3)))
def test_value_and_gradients(biased, joined, relu):
    rng = np.random.default_rng(0)
    x, shortcut, cotangent = (jnp.asarray(rng.normal(size=(2, 5, 4, 3)), jnp.float32) for _ in range(3))
    bias, shortcut = jnp.asarray([0.1, -0.2, 0.3]) if biased else None, shortcut if joined else None

    def plain(x, bias, shortcut):
        y = x + (0 if bias is None else bias) + (0 if shortcut is None else shortcut)
        return jax.nn.relu(y) if relu else y

    def with_gradients(function):
        y, pull = jax.vjp(function, x, bias, shortcut)
        return y, *jax.tree.leaves(pull(cotangent))

    ours, expected = with_gradients(lambda *args: add_bias(*args, relu)), with_gradients(plain)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relu", [False, True])
def test_gradient_of_a_bias_over_a_million_pixels_of_bfloat16(relu):
    cotangent = jnp.asarray(np.random.default_rng(0).normal(0.1, 1, (1, 1024, 1024, 3)), jnp.bfloat16)
    x = jnp.ones(cotangent.shape, jnp.bfloat16)
    (gradient,) = jax.vjp(lambda bias: add_bias(x, bias, None, relu), jnp.zeros(3))[1](cotangent)
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(gradient, np.asarray(cotangent, np.float64).sum((0, 1, 2)), rtol=1e-5)


def test_gradient_is_zero_where_the_relu_is():
    y, pull = jax.vjp(lambda x: add_bias(x, jnp.zeros(1), None, True), jnp.asarray([[-1.0], [0.0], [2.0]]))
    np.testing.assert_array_equal(y, [[0], [0], [2]])
    np.testing.assert_array_equal(pull(jnp.ones((3, 1)))[0], [[0], [0], [1]])
