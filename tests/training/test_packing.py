"""Packed states: equal values in fewer arrays, and equal training."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scarce_jax import optim
from scarce_jax.optim import Group, Optimizer, Schedule
from scarce_jax.recipe import Net, NetState, Out, Source, Train, Turn
from scarce_jax.training import packing, state
from scarce_jax.training.batches import TrainInput
from scarce_jax.training.packing import Buffers, Layout
from scarce_jax.training.step import make_step, step_keys
from tests import tiny

STEPS = 4


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    monkeypatch.setattr(packing, "MOST_ARRAYS", 6)


class Deep(nn.Module):
    """Kernels of several ranks, statistics, and more arrays than fit in a buffer."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (3, 3), name="stem")(x)
        for k in range(3):
            y = nn.BatchNorm(use_running_average=not train, name=f"bn{k}")(x)
            x = x + nn.Conv(6, (1, 1), name=f"conv{k}", use_bias=False)(nn.relu(y))
        return nn.Dense(2, name="head")(x.mean((1, 2)))


@dataclasses.dataclass(frozen=True)
class Squares:
    def __call__(self, params, nets, batch, shared, key):
        x = batch["rows"]["x"]
        variables = {"params": params, "batch_stats": nets["deep"].batch_stats}
        y, updated = Deep().apply(variables, x, train=True, mutable=["batch_stats"])
        loss = jnp.mean((y - Deep().apply(nets["frozen"].variables, x)) ** 2)
        return loss, Out(batch_stats={"deep": updated["batch_stats"]}, weight=x[0, 0, 0, 0] ** 2 + 1)


class Images:
    def __init__(self):
        self._x = np.random.default_rng(0).normal(size=(8, 5, 4, 3)).astype(np.float32)

    def __len__(self):
        return len(self._x)

    def __getitem__(self, k):
        return {"x": self._x[k]}


def as_they_are(row, key, consts):
    return row


SGD = Optimizer(lr=0.1, weight_decay=0.1, schedule=Schedule(kind="poly"))
HEAD = (Group(pattern="head", lr=10.0, weight_decay=0.0), Group())
OPTIMIZERS = {
    "sgd": SGD,
    "groups": dataclasses.replace(SGD, groups=HEAD, nesterov=True),
    "frozen group, clip and average": dataclasses.replace(
        SGD, groups=(Group(pattern="stem|bn1", lr=0), *HEAD), clip=0.1, ema=0.9
    ),
    "adam": Optimizer(kind="adam", lr=0.01, weight_decay=0.1, groups=HEAD, ema=0.9),
}


def stage(optimizer, accumulate=1):
    inputs = (jax.ShapeDtypeStruct((1, 5, 4, 3), jnp.float32),)
    return Train(
        name="stage",
        nets={"deep": Net(module=Deep(), inputs=inputs, optim=optimizer), "frozen": Net(module=Deep(), inputs=inputs)},
        turns=(Turn(net="deep", loss=Squares()),),
        sources={"rows": Source(dataset="points", split="train", batch=4, transform=as_they_are)},
        steps=STEPS,
        accumulate=accumulate,
    )


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_packing_keeps_every_value_in_fewer_arrays(optimizer):
    mesh, of_stage = tiny.mesh(2), stage(optimizer)
    plain = state.init_state(of_stage.nets, STEPS, 0, "stage", {}, mesh)
    # Values that are equal nowhere, so that none can be mistaken for another.
    leaves, tree = jax.tree.flatten(plain.nets)
    ends = np.cumsum([x.size for x in leaves])
    leaves = [
        np.arange(end - x.size, end).reshape(x.shape).astype(x.dtype) for x, end in zip(leaves, ends, strict=True)
    ]
    plain = plain.replace(nets=jax.tree.unflatten(tree, jax.device_put(leaves)))
    packed = packing.packed(plain, of_stage.optimizers, mesh)
    assert all(x.sharding.is_fully_replicated and len(x.devices()) == 2 for x in jax.tree.leaves(packed.nets["deep"]))
    assert len(jax.tree.leaves(packed.nets["deep"])) < len(jax.tree.leaves(plain.nets["deep"])) / 2
    assert packed.nets["frozen"] is plain.nets["frozen"]
    equal(packing.unpacked(packed.nets, mesh), plain.nets)
    equal(packing.unpack(packed.nets), plain.nets)
    equal(packing.pack(plain, of_stage.optimizers), packed)
    again = packing.pack(packed, of_stage.optimizers)
    assert again.nets["deep"].params is packed.nets["deep"].params
    # The optimizer's state is what the optimizer would have begun with, had it been given the buffers.
    params = packed.nets["deep"].params
    begun = jax.eval_shape(optim.build_for_groups(optimizer, params.groups, STEPS).init, params)
    assert jax.tree.structure(begun) == jax.tree.structure(packed.nets["deep"].opt_state)


def test_arrays_of_other_groups_ranks_and_dtypes_are_apart():
    tree = {
        "a": np.ones(2, np.float32),
        "b": np.ones((), np.int32),
        "c": np.ones((2, 1, 1, 3), np.float32),
        "d": np.ones(5, np.float32),
        "e": np.ones(5, np.float32),
        "f": np.ones((5, 1), np.float32),
    }
    layout = Layout.of(tree, [0, 0, 1, 0, 1, 1])
    assert set(layout.members) == {(0, 3), (1,), (2, 5), (4,)}
    assert [layout.groups[layout.members.index(x)] for x in ((0, 3), (1,), (2, 5), (4,))] == [0, 0, 1, 1]
    assert Layout.of({}).pack({}).unpack() == {}
    most = packing.MOST_ARRAYS
    many = Layout.of([np.ones(1)] * (2 * most + 1))
    assert len(many.members) == 3 and max(map(len, many.members)) <= most


def test_a_masked_buffer_stays_masked():
    tree = {"a": np.arange(2.0), "b": np.arange(3.0)}
    layout = Layout.of(tree, [0, 1])
    masked = {**tree, "b": optax.MaskedNode()}
    buffers = layout.pack(masked)
    assert isinstance(buffers, Buffers) and [isinstance(x, optax.MaskedNode) for x in buffers.arrays] == [False, True]
    assert isinstance(buffers.unpack()["b"], optax.MaskedNode)
    np.testing.assert_array_equal(buffers.unpack()["a"], tree["a"])


def by_hand(of_stage, plain, rows):
    """Parameters, statistics and the norm after a step, by optax on the plain tree."""
    net = plain.nets["deep"]
    tx = state.transformation(of_stage.nets["deep"], STEPS)
    gradient = jax.value_and_grad(Squares(), has_aux=True)
    (loss, out), grads = gradient(net.params, plain.nets, {"rows": {"x": rows}}, {}, None)
    updates, opt_state = tx.update(grads, net.opt_state, net.params)
    moved = NetState(optax.apply_updates(net.params, updates), out.batch_stats["deep"], opt_state)
    return plain.replace(step=plain.step + 1, nets={**plain.nets, "deep": moved}), optax.tree.norm(grads)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_step_is_that_of_optax_for_plain_and_packed_states(optimizer):
    mesh, of_stage = tiny.mesh(), stage(optimizer)
    expected = state.init_state(of_stage.nets, STEPS, 0, "stage", {}, mesh)
    inputs = {"rows": TrainInput(of_stage.sources["rows"], Images(), 0, "rows", mesh, 1, True)}
    step, keys = make_step(of_stage, STEPS, inputs, mesh), step_keys(inputs, 0, "stage", mesh)
    # Copies, because the step donates its state.
    states = {"plain": expected, "packed": packing.packed(expected, of_stage.optimizers, mesh)}
    states = jax.tree.map(jnp.copy, states)
    for draw in inputs["rows"].batches(0, STEPS):
        expected, norm = by_hand(of_stage, expected, draw["decoded"]["x"])
        for name, before in states.items():
            states[name], metrics = step(before, {"rows": draw}, keys, {})
            np.testing.assert_allclose(metrics["deep/grad_norm"], norm, rtol=1e-4)
            assert jax.tree.structure(states[name]) == jax.tree.structure(before)
        for after in states.values():
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), packing.unpack(after), expected
            )


def test_accumulated_gradients_are_those_of_the_plain_state():
    mesh = tiny.mesh()
    ends = {}
    for form in ("plain", "packed"):
        of_stage = stage(OPTIMIZERS["groups"], accumulate=2)
        begun = state.init_state(of_stage.nets, STEPS, 0, "stage", {}, mesh)
        begun = packing.packed(begun, of_stage.optimizers, mesh) if form == "packed" else begun
        inputs = {"rows": TrainInput(of_stage.sources["rows"], Images(), 0, "rows", mesh, 1, True)}
        step, keys = make_step(of_stage, STEPS, inputs, mesh), step_keys(inputs, 0, "stage", mesh)
        for draw in inputs["rows"].batches(0, STEPS):
            begun, _ = step(begun, {"rows": draw}, keys, {})
        ends[form] = packing.unpack(begun)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ends["plain"], ends["packed"])
