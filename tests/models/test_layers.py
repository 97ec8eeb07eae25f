"""Layers that several networks share: torch's padding, statistics and initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.batch_norm import batch_norm
from scarce_jax.models.layers import Convolution, TransposedConv, Upsampler


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (7, 2, 1), (3, 1, 2), (1, 2, 1)])
def test_convolution_pads_both_sides_alike(kernel, stride, dilation):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(1, 8, 10, 2)), rng.normal(size=(kernel, kernel, 2, 3))
    result = Convolution(3, kernel, stride=stride, dilation=dilation).apply(
        {"params": {"kernel": jnp.asarray(weights, jnp.float32)}}, jnp.asarray(x, jnp.float32)
    )
    pad, reach = dilation * (kernel - 1) // 2, dilation * (kernel - 1) + 1
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    expected = [
        [
            np.einsum("ijc,ijcf->f", padded[0, i : i + reach : dilation, j : j + reach : dilation], weights)
            for j in range(0, padded.shape[2] - reach + 1, stride)
        ]
        for i in range(0, padded.shape[1] - reach + 1, stride)
    ]
    np.testing.assert_allclose(result[0], expected, atol=1e-5)


def test_batch_norm_uses_torch_momentum_and_epsilon():
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (4, 5, 6, 2)), jnp.float32)
    module = batch_norm(train=True)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    y, updated = jax.jit(lambda v, x: module.apply(v, x, mutable=["batch_stats"]))(variables, x)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-4)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * variance, rtol=1e-4)


def test_initial_values_are_he_normal_over_the_outputs():
    variables = jax.jit(Convolution(64, 3).init)(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.03)


def test_upsampling_keeps_blocks_in_place():
    # Nearest-neighbour kernel: each pixel of a quarter becomes 4 x 4 pixels, and the result is cropped.
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    kernel = jnp.zeros((8, 8, 1, 1)).at[2:6, 2:6].set(1)
    variables = {"params": {"deconv": {"kernel": kernel, "bias": jnp.zeros(1)}}}
    y = Upsampler(1).apply(variables, x, (7, 9)).full()
    np.testing.assert_array_equal(y[0, :, :, 0], np.kron(np.arange(6.0).reshape(2, 3), np.ones((4, 4)))[:7, :9])


def test_transposed_convolution_has_torchs_variance_per_output_and_a_bias():
    module = TransposedConv(64, 8, 4, 2)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 1, 96)))["params"]
    # Uniform within 1 / sqrt(inputs), of which a pixel has 96 * (8 / 4)**2.
    bound = (96 * 4) ** -0.5
    assert 0.99 * bound < np.abs(params["kernel"]).max() <= bound
    np.testing.assert_allclose(params["kernel"].std(), bound / np.sqrt(3), rtol=0.01)
    y = module.apply({"params": {**params, "bias": jnp.arange(64.0)}}, jnp.zeros((1, 2, 2, 96)))
    np.testing.assert_array_equal(y, jnp.broadcast_to(jnp.arange(64.0), (1, 8, 8, 64)))
