import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.max_pool import max_pool


def reduce_window(x, window, stride, padding):
    sides = ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, stride, stride, 1), sides)


CASES = [
    (3, 2, ((1, 1), (1, 1))),
    (3, 2, ((1, 2), (1, 1))),
    (3, 1, ((1, 1), (1, 1))),
    (2, 2, ((0, 0), (0, 0))),
    (2, 3, ((0, 0), (0, 0))),
    (5, 2, ((2, 2), (0, 3))),
]


@pytest.mark.parametrize("size", [(9, 12), (13, 8), (5, 5)])
@pytest.mark.parametrize(("window", "stride", "padding"), CASES)
def test_maxima_and_gradient_equal_those_of_the_window_reduction(size, window, stride, padding):
    # No two entries are equal, and all are negative: a border padded with zeros would win.
    entries = np.random.default_rng(0).permutation(2 * size[0] * size[1] * 3)
    x = jnp.asarray(-1.0 - entries.reshape(2, *size, 3), jnp.float32)

    @jax.jit
    def both(x, cotangent):
        results = (jax.vjp(lambda x, f=f: f(x, window, stride, padding), x) for f in (max_pool, reduce_window))
        return [(y, pull(cotangent)[0]) for y, pull in results]

    shape = reduce_window(x, window, stride, padding).shape
    cotangent = jax.random.normal(jax.random.key(0), shape)
    (result, gradient), (expected, expected_gradient) = both(x, cotangent)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_bfloat16_stays():
    x = jax.random.normal(jax.random.key(0), (1, 6, 7, 2)).astype(jnp.bfloat16)
    y, pull = jax.vjp(lambda x: max_pool(x, 3, 2, ((1, 1), (1, 1))), x)
    assert y.dtype == jnp.bfloat16 and pull(jnp.ones_like(y))[0].dtype == jnp.bfloat16


def test_the_first_of_equal_maxima_has_the_gradient():
    x = jnp.zeros((1, 4, 4, 1))
    gradient = jax.grad(lambda x: max_pool(x, 2, 2, ((0, 0), (0, 0))).sum())(x)
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(gradient[0, :, :, 0], expected)


def test_nan_is_not_lost():
    for place in range(9):
        x = jnp.zeros((1, 3, 3, 1)).at[0, place // 3, place % 3, 0].set(jnp.nan)
        assert jnp.isnan(max_pool(x, 3, 1, ((0, 0), (0, 0)))).all()
