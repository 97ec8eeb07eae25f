"""Batch normalisation with shortcut and ReLU against Linen's module and the gradient that JAX derives from it."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.batch_norm import normalise

EPSILON = 1e-5


def linen(x, scale, bias, shortcut, relu, dtype):
    module = nn.BatchNorm(use_running_average=False, momentum=0.0, epsilon=EPSILON, dtype=dtype)
    y, new = module.apply({"params": {"scale": scale, "bias": bias}, "batch_stats": {}}, x, mutable=["batch_stats"])
    y = y if shortcut is None else y + shortcut
    return nn.relu(y) if relu else y, new["batch_stats"]["mean"], new["batch_stats"]["var"]


def ours(x, scale, bias, shortcut, relu, dtype):
    return normalise(x, scale, bias, shortcut, EPSILON, relu, dtype)


def example(shape=(3, 5, 7, 4), joined=True, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x, shortcut, cotangent = (jnp.asarray(rng.normal(0.5, 2, shape), dtype) for _ in range(3))
    scale, bias = (jnp.asarray(rng.normal(1, 0.5, shape[-1]), jnp.float32) for _ in range(2))
    return (x, scale, bias, shortcut if joined else None), cotangent


def with_gradients(function, arrays, cotangent, relu, dtype):
    @jax.jit
    def run(arrays, cotangent):
        (y, mean, variance), pull = jax.vjp(lambda *arrays: function(*arrays, relu, dtype), *arrays)
        return y, mean, variance, *jax.tree.leaves(pull((cotangent, jnp.zeros_like(mean), jnp.zeros_like(variance))))

    return run(arrays, cotangent)


@pytest.mark.parametrize(("joined", "relu"), itertools.product((False, True), repeat=2))
@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (2, 1, 1, 3), (6, 5)])
def test_equals_linens(shape, joined, relu):
    arrays, cotangent = example(shape, joined)
    results = [with_gradients(f, arrays, cotangent, relu, jnp.float32) for f in (ours, linen)]
    # In a group of two values the gradient is a small difference of large numbers.
    tolerance = 1e-4 if shape[0] == 2 else 1e-5
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("joined", "relu"), itertools.product((False, True), repeat=2))
def test_in_bfloat16(joined, relu):
    arrays, cotangent = example((4, 9, 9, 4), joined, jnp.bfloat16)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), (arrays, cotangent))
    expected = with_gradients(linen, *exact, relu, jnp.float32)
    for a, b in zip(with_gradients(ours, arrays, cotangent, relu, jnp.bfloat16), expected, strict=True):
        # A rounding may turn the sign before a ReLU, so that a pixel's gradient is there or not.
        wrong = np.abs(np.asarray(a, np.float32) - b) > 1e-2 * max(1, np.abs(b).max())
        assert wrong.mean() < 0.01


def test_equal_values_and_one_pixel_become_the_bias():
    for x in (jnp.full((2, 3, 3, 2), 7.0), jnp.asarray([[[[3.0, -4.0]]]])):
        arrays = x, jnp.ones(2), jnp.asarray([0.25, -0.5]), None
        y, mean, variance, *gradients = with_gradients(ours, arrays, jnp.ones_like(x), False, jnp.float32)
        np.testing.assert_allclose(y, np.broadcast_to([0.25, -0.5], x.shape), atol=1e-3)
        np.testing.assert_allclose(mean, x[0, 0, 0], rtol=1e-6)
        np.testing.assert_allclose(variance, 0, atol=1e-5)
        np.testing.assert_allclose(gradients[0], 0, atol=1e-3)


@pytest.mark.parametrize("relu", [False, True])
def test_groups_are_normalised_alone(relu):
    arrays, cotangent = example((6, 4, 4, 3))
    x, scale, bias, shortcut = arrays
    several = functools.partial(normalise, epsilon=EPSILON, relu=relu, dtype=jnp.float32, groups=3)
    (y, mean, variance), pull = jax.vjp(lambda *a: several(*a), *arrays)
    by_x, by_scale, by_bias, by_shortcut = pull((cotangent, jnp.zeros(3), jnp.zeros(3)))
    parts = []
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
        part = x[rows], scale, bias, shortcut[rows]
        parts.append(with_gradients(linen, part, cotangent[rows], relu, jnp.float32))
    whole = y, by_x, by_shortcut
    for ours_, place in zip(whole, (0, 3, 6), strict=True):
        np.testing.assert_allclose(ours_, np.concatenate([part[place] for part in parts]), rtol=1e-4, atol=1e-4)
    for ours_, place, over in ((mean, 1, np.mean), (variance, 2, np.mean), (by_scale, 4, np.sum), (by_bias, 5, np.sum)):
        expected = over([part[place] for part in parts], axis=0)
        np.testing.assert_allclose(ours_, expected, rtol=1e-4, atol=1e-4)
