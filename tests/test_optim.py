"""Optimizers: schedules, groups, clipping, averaging, and PyTorch's SGD, Adam and AdamW, against NumPy."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

from scarce_jax import optim
from scarce_jax.errors import InputError
from scarce_jax.optim import Group, Optimizer, Schedule

PARAMS = {"backbone": {"kernel": jnp.ones(3), "bias": jnp.ones(2)}, "head": {"kernel": jnp.full(4, 2.0)}}
CONSTANT = Schedule(kind="constant")
PLAIN = Optimizer(lr=0.1, momentum=0.0, schedule=CONSTANT)
"""One step moves a parameter by 0.1 of its gradient."""
FROZEN_BIAS = (Group(pattern="^head/", lr=10.0), Group(pattern="bias$", lr=0.0), Group())


def gradient(i: int, scale: float = 1.0):
    """Gradients that differ between steps and parameters."""
    leaves, tree = jax.tree.flatten(PARAMS)
    return tree.unflatten(
        [scale * jnp.asarray(np.random.default_rng([i, k]).normal(size=x.shape), x.dtype) for k, x in enumerate(leaves)]
    )


def trained(optimizer: Optimizer, steps: int, grads=gradient, restore_at: int | None = None):
    """Parameters and optimizer states after 0..`steps` steps, in one compiled update.

    Args:
      restore_at: step at which the state goes through a checkpoint.
    """
    tx = optim.build(optimizer, jax.eval_shape(lambda: PARAMS), steps)

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    history = [(PARAMS, jax.jit(tx.init)(PARAMS))]
    for i in range(steps):
        params, state = history[-1]
        if i == restore_at:
            stored = jax.tree.map(np.asarray, serialization.to_state_dict(state))
            state = serialization.from_state_dict(jax.tree.map(jnp.zeros_like, state), stored)
        history.append(step(params, state, grads(i)))
    return history


def rates(optimizer: Optimizer, steps: int, at) -> list[float]:
    rate = optim.learning_rate(optimizer, steps)
    return [float(rate(i)) for i in at]


def test_poly_schedule_of_the_paper():
    assert rates(Optimizer(lr=0.01), 10_000, (0, 5_000)) == pytest.approx([0.01, 0.0053589], abs=1e-7)
    assert rates(Optimizer(lr=0.01), 10_000, [10_000]) == [0]


@pytest.mark.parametrize("warmup", [0, 20])
def test_cosine_schedule(warmup):
    optimizer = Optimizer(lr=0.4, schedule=Schedule(kind="cosine", final=0.25, warmup=warmup))
    halfway = 0.4 * (0.25 + 0.75 / 2)
    third = 0.4 * (0.25 + 0.75 * (1 + math.cos(math.pi / 3)) / 2)
    assert rates(optimizer, warmup + 120, (warmup, warmup + 40, warmup + 60, warmup + 120, warmup + 130)) == (
        pytest.approx([0.4, third, halfway, 0.1, 0.1], rel=1e-6)
    )


def test_poly_schedule_ends_at_its_final_rate():
    optimizer = Optimizer(lr=0.4, schedule=Schedule(power=2.0, final=0.25))
    assert rates(optimizer, 10, (0, 5, 10)) == pytest.approx([0.4, 0.4 * (0.25 + 0.75 / 4), 0.1])


@pytest.mark.parametrize("kind", ["poly", "cosine", "step", "constant"])
def test_warm_up_is_linear_for_every_kind(kind):
    optimizer = Optimizer(lr=2.0, schedule=Schedule(kind=kind, warmup=4))
    assert rates(optimizer, 30, range(5)) == pytest.approx([0, 0.5, 1.0, 1.5, 2.0])


def test_step_schedule_drops_at_its_boundaries():
    optimizer = Optimizer(lr=1.0, schedule=Schedule(kind="step", boundaries=(10, 20), factor=0.1, warmup=5))
    assert rates(optimizer, 30, (5, 9, 10, 19, 20)) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_sgd_is_torch_sgd():
    """PyTorch: g += decay * p; m = momentum * m + g; p -= lr * m, with the rate of this very step."""
    optimizer = Optimizer(lr=0.1, momentum=0.9, weight_decay=0.01)
    history = trained(optimizer, 5)
    p, m = np.full(4, 2.0), np.zeros(4)
    for i in range(5):
        m = 0.9 * m + (gradient(i)["head"]["kernel"] + 0.01 * p)
        p = p - 0.1 * (1 - i / 5) ** 0.9 * m
        np.testing.assert_allclose(history[i + 1][0]["head"]["kernel"], p, rtol=1e-5)


def test_adam_is_torch_adamw():
    """The decay does not pass through the moments."""
    optimizer = Optimizer(kind="adam", lr=0.1, momentum=0.8, b2=0.95, weight_decay=0.5, schedule=CONSTANT)
    history = trained(optimizer, 5)
    p, m, v = np.full(4, 2.0), np.zeros(4), np.zeros(4)
    for i in range(5):
        g = np.asarray(gradient(i)["head"]["kernel"])
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        p = p - 0.1 * (m / (1 - 0.8 ** (i + 1)) / (np.sqrt(v / (1 - 0.95 ** (i + 1))) + 1e-8) + 0.5 * p)
        np.testing.assert_allclose(history[i + 1][0]["head"]["kernel"], p, rtol=1e-5)


def test_adam_with_l2_is_torch_adam():
    """PyTorch: g += decay * p, and then the moments."""
    optimizer = Optimizer(kind="adam_l2", lr=0.1, momentum=0.8, b2=0.95, weight_decay=0.5, schedule=CONSTANT)
    history = trained(optimizer, 5)
    p, m, v = np.full(4, 2.0), np.zeros(4), np.zeros(4)
    for i in range(5):
        g = np.asarray(gradient(i)["head"]["kernel"]) + 0.5 * p
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        p = p - 0.1 * m / (1 - 0.8 ** (i + 1)) / (np.sqrt(v / (1 - 0.95 ** (i + 1))) + 1e-8)
        np.testing.assert_allclose(history[i + 1][0]["head"]["kernel"], p, rtol=1e-5)


def test_l2_of_adam_decays_where_decoupled_decay_does_not():
    """Gradients of 1e-4 without a mean, 100 steps of the auxiliary paper's optimizer from p = 1.

    Decoupled, the decay of a step is 5e-4 * 1e-4: 5e-6 in all. As L2 it is as large as the gradients, and p falls by
    about 1 / sqrt(2) of the rate in each step, 0.035 in all.
    """
    signs = np.random.default_rng(0).choice([-1e-4, 1e-4], 100)
    decoupled, l2 = (
        trained(
            Optimizer(kind=kind, lr=5e-4, weight_decay=1e-4, schedule=CONSTANT),
            100,
            lambda i: jax.tree.map(lambda x: jnp.full_like(x, signs[i]), PARAMS),
        )[-1][0]
        for kind in ("adam", "adam_l2")
    )
    fallen = decoupled["backbone"]["kernel"] - l2["backbone"]["kernel"]
    np.testing.assert_allclose(fallen, 0.035, atol=0.01)


@pytest.mark.parametrize("terms", [20, 321**2])
def test_steps_for_a_mean_are_those_for_the_sum(terms):
    """Over a schedule, with momentum, in all groups."""
    schedule = Schedule(kind="step", boundaries=(3,))
    of_sum = trained(optim.caffe(0.01, schedule, head="^backbone/"), 6)
    of_mean = trained(optim.caffe(0.01, schedule, head="^backbone/", terms=terms), 6, lambda i: gradient(i, 1 / terms))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), of_sum[-1][0], of_mean[-1][0])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), of_sum[-1][0], PARAMS)
    assert min(jax.tree.leaves(moved)) > 0.01


def test_biases_of_batch_normalisation_are_not_those_of_layers():
    layers = ["fc8/bias", "conv/bias", "backbone/layer1_block0/conv1/bias", "bridge/fc6/bias"]
    others = ["bn_pool5/bias", "backbone/bn1_1/bias", "layer1_block0/downsample_bn/bias", "fc8/kernel", "bn1/scale"]
    assert [path for path in layers + others if re.search(optim.BIAS_PATTERN, path)] == layers


def test_groups_multiply_and_freeze():
    history = trained(dataclasses.replace(PLAIN, groups=FROZEN_BIAS), 1, lambda i: jax.tree.map(jnp.ones_like, PARAMS))
    params = history[1][0]
    np.testing.assert_allclose(params["head"]["kernel"], 2.0 - 1.0, rtol=1e-6)
    np.testing.assert_allclose(params["backbone"]["kernel"], 1.0 - 0.1, rtol=1e-6)
    np.testing.assert_array_equal(params["backbone"]["bias"], 1.0)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adam_l2"])
def test_a_frozen_group_has_no_optimizer_state(kind):
    optimizer = Optimizer(kind=kind, lr=0.1, groups=FROZEN_BIAS, clip=1.0, ema=0.9)
    shapes = [x.shape for x in jax.tree.leaves(trained(optimizer, 1)[1][1])]
    assert (3,) in shapes and (2,) not in shapes


def test_uncovered_parameters_are_listed():
    with pytest.raises(InputError, match="head/kernel"):
        optim.build(Optimizer(lr=0.1, groups=(Group(pattern="backbone"),)), PARAMS, 10)


def test_patterns_that_match_nothing_are_named_with_what_there_is():
    groups = (Group(pattern="layer9"), Group())
    with pytest.raises(InputError, match=r"optim.groups: the pattern 'layer9' matches no parameter; .* backbone/bias"):
        optim.build(Optimizer(lr=0.1, groups=groups), PARAMS, 10)


def test_a_rate_out_of_its_range_builds_nothing():
    with pytest.raises(InputError, match="^--optim.lr nan: expected a number above 0"):
        optim.build(Optimizer(lr=math.nan), PARAMS, 10)


@pytest.mark.parametrize("scale", [0.01, 10.0], ids=["short", "long"])
@pytest.mark.parametrize("groups", [(Group(),), FROZEN_BIAS], ids=["one group", "groups"])
def test_clipping_is_by_the_norm_over_all_trained_parameters(scale, groups):
    """A frozen parameter's gradient has no part in the norm, and every group is scaled by the same factor."""
    history = trained(dataclasses.replace(PLAIN, clip=0.5, groups=groups), 1, lambda i: gradient(i, scale))
    grads = gradient(0, scale)
    rate = {"head": {"kernel": 1.0 if len(groups) > 1 else 0.1}, "backbone": {"kernel": 0.1}}
    if len(groups) == 1:
        rate["backbone"]["bias"] = 0.1
    norm = np.sqrt(sum(np.sum(np.square(grads[part][name])) for part in rate for name in rate[part]))
    assert (norm > 0.5) == (scale > 1)
    for part in rate:
        for name in rate[part]:
            step = rate[part][name] * np.asarray(grads[part][name]) * min(1.0, 0.5 / norm)
            np.testing.assert_allclose(history[1][0][part][name], PARAMS[part][name] - step, rtol=1e-5)


def test_the_gradient_is_clipped_before_momentum_and_decay():
    optimizer = Optimizer(lr=0.1, momentum=0.9, weight_decay=0.5, schedule=CONSTANT, clip=0.5)
    history = trained(optimizer, 3, lambda i: gradient(i, 10.0))
    p, m = np.full(4, 2.0), np.zeros(4)
    for i in range(3):
        grads = gradient(i, 10.0)
        norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(grads)))
        m = 0.9 * m + (np.asarray(grads["head"]["kernel"]) * 0.5 / norm + 0.5 * p)
        p = p - 0.1 * m
        np.testing.assert_allclose(history[i + 1][0]["head"]["kernel"], p, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_average_weighs_the_parameters_after_each_step(decay):
    optimizer = Optimizer(lr=0.1, ema=decay, groups=FROZEN_BIAS)
    history = trained(optimizer, 6)
    for n, (params, state) in enumerate(history[1:], start=1):
        weights = decay ** np.arange(n - 1, -1, -1.0)
        for part, name in (("head", "kernel"), ("backbone", "kernel"), ("backbone", "bias")):
            path = [np.asarray(p[part][name], np.float64) for p, _ in history[1 : n + 1]]
            expected = sum(w * p for w, p in zip(weights, path, strict=True)) / weights.sum()
            np.testing.assert_allclose(optim.averaged(state, params)[part][name], expected, rtol=1e-5, atol=1e-6)


def test_a_long_average_forgets_at_its_decay():
    """A constant gradient moves the parameters evenly, so that their average lags d / (1 - d) steps behind."""
    history = trained(dataclasses.replace(PLAIN, ema=0.9), 200, lambda i: jax.tree.map(jnp.ones_like, PARAMS))
    params, state = history[-1]
    lag = optim.averaged(state, params)["head"]["kernel"] - params["head"]["kernel"]
    np.testing.assert_allclose(lag, 0.1 * 0.9 / 0.1, rtol=1e-3)


def test_averaging_does_not_change_training():
    optimizer = Optimizer(kind="adam", lr=0.1, clip=1.0, groups=FROZEN_BIAS)
    plain, averaging = trained(optimizer, 4), trained(dataclasses.replace(optimizer, ema=0.9), 4)
    for (params, state), (same, _) in zip(plain, averaging, strict=True):
        jax.tree.map(np.testing.assert_array_equal, params, same)
        assert optim.averaged(state, params) is params


def test_the_average_before_the_first_step_is_the_parameters():
    ((params, state),) = trained(Optimizer(lr=0.1, ema=0.9), 0)
    jax.tree.map(np.testing.assert_array_equal, optim.averaged(state, params), params)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adam_l2"])
def test_a_restored_state_goes_on_with_the_same_bits(kind):
    optimizer = Optimizer(kind=kind, lr=0.1, clip=0.5, ema=0.9, groups=FROZEN_BIAS, schedule=Schedule(kind="cosine"))
    whole, restored = trained(optimizer, 6)[-1], trained(optimizer, 6, restore_at=3)[-1]
    jax.tree.map(np.testing.assert_array_equal, whole, restored)
    jax.tree.map(np.testing.assert_array_equal, optim.averaged(*whole[::-1]), optim.averaged(*restored[::-1]))


@pytest.mark.parametrize("wrap", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_parameters_and_state_can_be_donated_together(wrap):
    """No buffer is in them twice, which donation would refuse."""
    params = jax.tree.map(jnp.copy, PARAMS)
    state = wrap(optim.build(Optimizer(lr=0.1, ema=0.9), params, 3).init)(params)
    double = jax.jit(lambda trees: jax.tree.map(lambda x: 2 * x, trees), donate_argnums=0)
    doubled, state = double((params, state))
    np.testing.assert_array_equal(optim.averaged(state, doubled)["head"]["kernel"], 4.0)
