"""Optimizers: schedules, groups, and PyTorch's SGD."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scarce_jax import optim
from scarce_jax.optim import Group, Optimizer, Schedule

PARAMS = {"backbone": {"kernel": jnp.ones(3), "bias": jnp.ones(2)}, "head": {"kernel": jnp.full(4, 2.0)}}


def test_poly_schedule_of_the_paper():
    rate = optim.learning_rate(Optimizer(lr=0.01), 10_000)
    assert float(rate(0)) == pytest.approx(0.01)
    assert float(rate(5_000)) == pytest.approx(0.0053589, abs=1e-7)
    assert float(rate(10_000)) == 0


def test_step_schedule_with_warm_up():
    optimizer = Optimizer(lr=1.0, schedule=Schedule(kind="step", boundaries=(10, 20), factor=0.1, warmup=5))
    rate = optim.learning_rate(optimizer, 30)
    assert [float(rate(i)) for i in (0, 1, 5, 9)] == pytest.approx([0, 0.2, 1, 1])
    assert [float(rate(i)) for i in (11, 21)] == pytest.approx([0.1, 0.01])


def test_sgd_is_torch_sgd():
    """PyTorch: g += decay * p; m = momentum * m + g; p -= lr * m, with the rate of this very step."""
    optimizer = Optimizer(lr=0.1, momentum=0.9, weight_decay=0.01)
    tx = optim.build(optimizer, PARAMS, 10)
    params, state = PARAMS, tx.init(PARAMS)
    p, m = np.full(4, 2.0), np.zeros(4)
    for i in range(5):
        gradient = jax.tree.map(lambda x, i=i: jnp.full_like(x, 0.5 + i), params)
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        m = 0.9 * m + (0.5 + i + 0.01 * p)
        p = p - 0.1 * (1 - i / 10) ** 0.9 * m
        np.testing.assert_allclose(params["head"]["kernel"], p, rtol=1e-6)


def test_groups_multiply_and_freeze():
    groups = (Group(pattern="^head/", lr=10.0), Group(pattern="bias$", lr=0.0), Group())
    optimizer = Optimizer(lr=0.1, momentum=0.0, schedule=Schedule(kind="constant"), groups=groups)
    tx = optim.build(optimizer, PARAMS, 10)
    state = tx.init(PARAMS)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
    assert float(updates["head"]["kernel"][0]) == pytest.approx(-1.0)
    assert float(updates["backbone"]["kernel"][0]) == pytest.approx(-0.1)
    assert float(updates["backbone"]["bias"][0]) == 0.0
    shapes = [x.shape for x in jax.tree.leaves(state)]
    assert (2,) not in shapes  # A frozen parameter has no optimizer state.


def test_uncovered_parameters_are_listed():
    with pytest.raises(ValueError, match="head/kernel"):
        optim.build(Optimizer(lr=0.1, groups=(Group(pattern="backbone"),)), PARAMS, 10)
