"""Pyramid pooling against the poolings one by one, a convolution of grids against that of their resizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.pyramid import pool_pyramid, resized_convolution
from scarce_jax.ops.resize import adaptive_average_pool, resize_bilinear

BINS = (1, 2, 3, 6)


def with_gradients(function, *operands):
    """Values and gradients of a function, float32, by fixed cotangents."""
    value, backward = jax.vjp(function, *operands)
    rng = np.random.default_rng(9)
    cotangent = jax.tree.map(lambda y: jnp.asarray(rng.normal(size=y.shape), y.dtype), value)
    return [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves((value, backward(cotangent)))]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [(12, 12), (7, 11), (4, 9)])
def test_pooling_equals_the_poolings_one_by_one(size, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), dtype)
    levels = pool_pyramid(x, BINS)
    assert [level.shape for level in levels] == [(2, n, n, 3) for n in BINS]
    assert {level.dtype for level in levels} == {jnp.dtype(dtype)}
    results = with_gradients(lambda x: pool_pyramid(x, BINS), x)
    plain = with_gradients(lambda x: tuple(adaptive_average_pool(x, n) for n in BINS), x)
    tolerance = 1e-6 if dtype == jnp.float32 else 4e-2
    for result, expected in zip(results, plain, strict=True):
        np.testing.assert_allclose(result, expected, atol=tolerance)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("size", "taps"), [((9, 12), 3), ((5, 7), 3), ((6, 6), 1), ((4, 5), 5), ((1, 8), 3)])
def test_convolution_of_grids_equals_that_of_their_resizes(size, taps, dtype):
    rng = np.random.default_rng(0)
    grids = [jnp.asarray(rng.normal(size=(2, n, n, 2 + n)), dtype) for n in BINS]
    kernels = [jnp.asarray(rng.normal(size=(taps, taps, 2 + n, 4)) / taps, dtype) for n in BINS]

    def plain(grids, kernels):
        resized = [resize_bilinear(grid.astype(jnp.float32), size, align_corners=True) for grid in grids]
        kernel = jnp.concatenate(kernels, 2).astype(jnp.float32)
        x = jnp.concatenate(resized, -1)
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names).astype(dtype)

    results = with_gradients(lambda g, k: resized_convolution(g, k, size), grids, kernels)
    for result, expected in zip(results, with_gradients(plain, grids, kernels), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(result, expected, atol=scale * (2e-6 if dtype == jnp.float32 else 3e-2))
