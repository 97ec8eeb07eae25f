"""Pooling with switches and unpooling against loops, gradients included."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.pool import max_pool_with_switches, unpool


def slow_pool(x, window):
    """The first of the largest entries of every window, in row-major order."""
    shape = (x.shape[0], x.shape[1] // window, x.shape[2] // window, x.shape[3])
    pooled, switches = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
    for b, i, j, c in np.ndindex(*shape):
        entries = x[b, i * window : (i + 1) * window, j * window : (j + 1) * window, c].ravel()
        switches[b, i, j, c] = entries.argmax()
        pooled[b, i, j, c] = entries.max()
    return pooled, switches


def slow_unpool(x, switches, window):
    y = np.zeros((x.shape[0], x.shape[1] * window, x.shape[2] * window, x.shape[3]), x.dtype)
    for b, i, j, c in np.ndindex(*x.shape):
        row, column = divmod(int(switches[b, i, j, c]), window)
        y[b, i * window + row, j * window + column, c] = x[b, i, j, c]
    return y


def slow_pick(y, switches, window):
    x = np.empty(switches.shape, y.dtype)
    for b, i, j, c in np.ndindex(*x.shape):
        row, column = divmod(int(switches[b, i, j, c]), window)
        x[b, i, j, c] = y[b, i * window + row, j * window + column, c]
    return x


@pytest.mark.parametrize(("window", "dtype"), [(2, "float32"), (3, "float32"), (2, "bfloat16"), (1, "float32")])
def test_equals_the_loops_with_gradients(window, dtype):
    rng = np.random.default_rng(window)
    # Few distinct values, so that most windows have ties, and the signs of both.
    x = jnp.asarray(rng.integers(-2, 3, (2, 4 * window, 3 * window, 5)), dtype)
    gradient = jnp.asarray(rng.normal(size=(2, 4, 3, 5)), dtype)
    wide_gradient = jnp.asarray(rng.normal(size=x.shape), dtype)

    @jax.jit
    def both(x, gradient, wide_gradient):
        pooled, pull, switches = jax.vjp(lambda x: max_pool_with_switches(x, window), x, has_aux=True)
        spread, pull_wide = jax.vjp(lambda y: unpool(y, switches, window), gradient)
        return pooled, switches, pull(gradient)[0], spread, pull_wide(wide_gradient)[0]

    pooled, switches, to_input, spread, to_pooled = both(x, gradient, wide_gradient)
    expected, expected_switches = slow_pool(np.asarray(x), window)
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_array_equal(switches, expected_switches)
    assert switches.dtype == jnp.uint8 and pooled.dtype == spread.dtype == to_input.dtype == jnp.dtype(dtype)
    scattered = slow_unpool(np.asarray(gradient), expected_switches, window)
    np.testing.assert_array_equal(to_input, scattered)
    np.testing.assert_array_equal(spread, scattered)
    np.testing.assert_array_equal(to_pooled, slow_pick(np.asarray(wide_gradient), expected_switches, window))


def test_unpooled_maxima_are_a_quarter_and_pool_to_themselves():
    x = jnp.asarray(1 + np.random.default_rng(0).permutation(2 * 8 * 6 * 3).reshape(2, 8, 6, 3), jnp.float32)
    pooled, switches = max_pool_with_switches(x)
    y = unpool(pooled, switches)
    nonzero = np.asarray(y != 0)
    assert nonzero.sum() == x.size / 4
    np.testing.assert_array_equal(np.asarray(y)[nonzero], np.asarray(x)[nonzero])
    # The converse, with whatever switches: a value of at least zero is its window's maximum.
    values = jnp.abs(pooled) - pooled.min()
    np.testing.assert_array_equal(max_pool_with_switches(unpool(values, switches))[0], values)


def test_a_nan_stays_and_infinities_compare():
    windows = list(itertools.permutations([np.nan, 1.0, -np.inf, np.inf], 4))
    x = np.asarray(windows, np.float32).reshape(-1, 2, 2, 1)
    assert np.isnan(max_pool_with_switches(jnp.asarray(x))[0]).all()
    x = np.where(np.isnan(x), -np.inf, x)
    pooled, switches = max_pool_with_switches(jnp.asarray(x))
    expected, expected_switches = slow_pool(x, 2)
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_array_equal(switches, expected_switches)


def test_maps_over_a_further_axis():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4, 4, 5)), jnp.float32)
    pooled, switches = jax.jit(jax.vmap(max_pool_with_switches))(x)
    for i, each in enumerate(x):
        np.testing.assert_array_equal(switches[i], slow_pool(np.asarray(each), 2)[1])
    spread = jax.jit(jax.vmap(unpool, in_axes=(0, None)))(pooled, switches[0])
    for i, each in enumerate(pooled):
        np.testing.assert_array_equal(spread[i], slow_unpool(np.asarray(each), np.asarray(switches[0]), 2))


def test_second_derivative():
    # sum(pool(x)**3) is a sum of cubes of the maxima, whatever path the derivative takes.
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 2)), jnp.float32)
    first = jax.grad(lambda x: (max_pool_with_switches(x)[0] ** 3).sum())
    second = jax.jit(jax.grad(lambda x: first(x).sum()))(x)
    pooled, switches = slow_pool(np.asarray(x), 2)
    np.testing.assert_allclose(second, slow_unpool(6 * pooled, switches, 2), rtol=1e-6)


def test_programs_have_no_scatter_and_no_gather():
    def step(x, g):
        pooled, switches = max_pool_with_switches(x)
        return (unpool(pooled, switches) * g).sum()

    x = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
    text = jax.jit(jax.grad(step)).lower(x, x).as_text()
    assert "select" in text
    assert "scatter" not in text and "gather" not in text and "reduce_window" not in text


def test_what_does_not_fit_is_an_error():
    x = jnp.zeros((1, 5, 4, 2))
    with pytest.raises(ValueError, match="input to pool is 5 x 4; expected multiples of the window, 2"):
        max_pool_with_switches(x)
    with pytest.raises(ValueError, match=r"input to pool has shape \(5, 4, 2\); expected \[B, H, W, C\]"):
        max_pool_with_switches(x[0])
    for window in (0, 17):
        with pytest.raises(ValueError, match=f"pooling window is {window}; expected 1 to 16"):
            max_pool_with_switches(jnp.zeros((1, 34, 34, 1)), window)
    with pytest.raises(ValueError, match=r"values have shape \(1, 5, 4, 2\), switches \(1, 5, 4, 1\)"):
        unpool(x, jnp.zeros((1, 5, 4, 1), jnp.uint8))
    with pytest.raises(ValueError, match="switches are int32; expected uint8"):
        unpool(x, jnp.zeros(x.shape, jnp.int32))
