"""The compiled step: turns, frozen nets, what turns share, keys."""

import collections
import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax.optim import Group, Optimizer, Schedule
from scarce_jax.recipe import Net, Out, Source, Train, Turn
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import TrainInput
from scarce_jax.training.step import make_step, step_keys

traces = collections.Counter()
NOISE = 0.1
STEPS = 10


class Generator(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, name="out")(nn.relu(nn.Dense(5, name="hidden")(x)))


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x)
        return nn.Dense(1, name="out")(x)[:, 0]


def generator_loss(params, nets, batch, shared, key):
    traces["generator"] += 1
    x = batch["real"]["x"]
    points = Generator().apply({"params": params}, x + NOISE * jax.random.normal(key, x.shape))
    target = Generator().apply(nets["teacher"].variables, x)
    score = Discriminator().apply(nets["discriminator"].variables, points)
    loss = jnp.mean((points - target) ** 2) - shared["weight"] * score.mean()
    return loss, Out(metrics={"mean": points.mean()}, share={"points": points})


def discriminator_loss(params, nets, batch, shared, key):
    traces["discriminator"] += 1
    both = jnp.concatenate([batch["other"]["x"], shared["points"]])
    variables = {"params": params, "batch_stats": nets["discriminator"].batch_stats}
    scores, updated = Discriminator().apply(variables, both, train=True, mutable=["batch_stats"])
    real = jnp.arange(len(both)) < len(batch["other"]["x"])
    loss = optax.sigmoid_binary_cross_entropy(scores, real).mean()
    # What a turn sees of a net that an earlier turn moved is the moved net.
    metrics = {"generator": optax.tree.norm(nets["generator"].params)}
    return loss, Out(metrics=metrics, batch_stats={"discriminator": updated["batch_stats"]})


class Points:
    """Rows of numbers, in place of a data set's."""

    def __init__(self, count, seed):
        self._x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)

    def __len__(self):
        return len(self._x)

    def __getitem__(self, k):
        return {"x": self._x[k]}


X = (jax.ShapeDtypeStruct((1, 3), jnp.float32),)
OPTIM = Optimizer(lr=0.1, momentum=0.0, schedule=Schedule(kind="constant"))


@dataclasses.dataclass(frozen=True)
class Moved:
    """A transform that is compared by value."""

    by: float

    def __call__(self, row, key, consts):
        return {"x": row["x"] + self.by}


def adversarial(name="adversarial", keys_as=None, transform=None):
    """Without a transform, stages of two calls have transforms that are equal to no other."""
    transform = transform or (lambda row, key, consts: row)

    def source(batch):
        return Source(dataset="points", split="train", batch=batch, transform=transform)

    return Train(
        name=name,
        nets={
            "generator": Net(module=Generator(), inputs=X, optim=OPTIM),
            "discriminator": Net(module=Discriminator(), inputs=X, optim=OPTIM),
            "teacher": Net(module=Generator(), inputs=X),
        },
        turns=(Turn(net="generator", loss=generator_loss), Turn(net="discriminator", loss=discriminator_loss)),
        sources={"real": source(8), "other": source(16)},
        steps=STEPS,
        consts={"weight": np.float32(0.5)},
        keys_as=keys_as,
    )


@dataclasses.dataclass
class Started:
    """A stage ready to step by hand."""

    stage: Train
    devices: int = 2
    rows: dict | None = None

    def __post_init__(self):
        self.mesh = mesh_lib.make_mesh(jax.devices()[: self.devices])
        drawn_as = self.stage.keys_as or self.stage.name
        self.state = state_lib.init_state(self.stage.nets, STEPS, 0, drawn_as, {}, self.mesh)
        rows = self.rows or {name: Points(20, k) for k, name in enumerate(self.stage.sources)}
        self.inputs = {
            name: TrainInput(source, rows[name], 0, f"{drawn_as}/{name}", self.mesh, 1, True)
            for name, source in self.stage.sources.items()
        }
        self.keys = step_keys(self.inputs, 0, drawn_as, self.mesh)
        self.loss_key = state_lib.named_key(0, drawn_as, "loss")
        self.consts = mesh_lib.replicate(self.mesh, dict(self.stage.consts))
        self.step = make_step(self.stage, STEPS, self.inputs, self.mesh)
        self.streams = {name: source.batches(0, STEPS) for name, source in self.inputs.items()}
        self.draws = []

    def advance(self):
        draws = {name: next(stream) for name, stream in self.streams.items()}
        self.draws.append(jax.device_get({name: draw["decoded"]["x"] for name, draw in draws.items()}))
        self.state, metrics = self.step(self.state, draws, self.keys, self.consts)
        return {name: float(value) for name, value in metrics.items()}

    def nets(self):
        return jax.tree.map(lambda x: np.asarray(x).copy(), self.state.nets)


@pytest.fixture
def started():
    return Started(adversarial())


def test_each_turn_moves_its_own_net_in_turn(started):
    before = started.nets()
    traces.clear()
    metrics = started.advance()
    after = started.nets()
    assert traces == {"generator": 1, "discriminator": 1}
    key = jax.random.fold_in(started.loss_key, 0)
    rows = started.draws[0]
    batch = {name: {"x": jnp.asarray(x)} for name, x in rows.items()}
    consts = {"weight": jnp.float32(0.5)}

    def by_hand(net, loss, nets, shared, turn):
        grad = jax.value_and_grad(loss, has_aux=True)
        (value, out), grads = grad(nets[net].params, nets, batch, shared, jax.random.fold_in(key, turn))
        return value, out, jax.tree.map(lambda p, g: p - 0.1 * g, nets[net].params, grads)

    loss, out, params = by_hand("generator", generator_loss, before, consts, 0)
    nets = {**before, "generator": before["generator"].replace(params=params)}
    np.testing.assert_allclose(metrics["generator/loss"], loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after["generator"].params, params)
    norm = optax.tree.norm(params)
    loss, out, params = by_hand("discriminator", discriminator_loss, nets, {**consts, **out.share}, 1)
    np.testing.assert_allclose(metrics["discriminator/loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator/generator"], norm, rtol=1e-5)
    stepped, stats = after["discriminator"], out.batch_stats["discriminator"]
    for tree, expected in ((stepped.params, params), (stepped.batch_stats, stats)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), tree, expected)
    assert set(metrics) == {
        *(f"{net}/{name}" for net in ("generator", "discriminator") for name in ("loss", "grad_norm")),
        "generator/mean",
        "discriminator/generator",
    }


def compiled_steps(caplog):
    return [x.getMessage() for x in caplog.records if re.match(r"Compiling.*\bstep\b", x.getMessage())]


def test_frozen_nets_stay_and_one_program_serves_all_steps(started, caplog):
    before = started.nets()
    assert before["teacher"].opt_state == () and jax.tree.leaves(before["generator"].opt_state)
    traces.clear()
    with jax.log_compiles():
        for _ in range(4):
            started.advance()
    assert traces == {"generator": 1, "discriminator": 1} and len(compiled_steps(caplog)) == 1
    after = started.nets()
    jax.tree.map(np.testing.assert_array_equal, after["teacher"].params, before["teacher"].params)
    pairs = zip(*(jax.tree.leaves(nets["generator"].params) for nets in (before, after)), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_stages_of_equal_values_are_traced_once():
    def rows(seed):
        return {name: Points(20, seed) for name in ("real", "other")}

    one = Started(adversarial(transform=Moved(0.5)), rows=rows(3))
    one.advance()
    traces.clear()
    other = Started(adversarial("second", transform=Moved(0.5)), rows=rows(4))
    assert other.step is one.step
    metrics = other.advance()
    assert not traces and metrics != one.advance()
    stage = adversarial(transform=Moved(0.5))
    faster = dataclasses.replace(stage.nets["generator"], optim=dataclasses.replace(OPTIM, lr=0.2))
    for different in (
        adversarial(transform=Moved(0.6)),
        adversarial(),
        dataclasses.replace(stage, nets={**stage.nets, "generator": faster}),
        dataclasses.replace(stage, turns=stage.turns[::-1]),
    ):
        assert Started(different).step is not one.step


def test_no_optimizer_state_for_frozen_groups():
    frozen = dataclasses.replace(OPTIM, momentum=0.9, groups=(Group(pattern="hidden", lr=0), Group()))
    net = Net(module=Generator(), inputs=X, optim=frozen)
    opt = state_lib.transformation(net, STEPS).init(state_lib.init_net(net, jax.random.key(0)).params)
    sizes = [x.size for x in jax.tree.leaves(opt) if x.ndim]
    assert sum(sizes) == 5 * 3 + 3  # The layer "out" alone.


def test_keys_as_gives_the_draws_of_another_stage():
    twin = Started(adversarial("twin", keys_as="adversarial"))
    stranger = Started(adversarial("stranger"))
    original = Started(adversarial())
    for net in ("generator", "discriminator", "teacher"):
        jax.tree.map(np.testing.assert_array_equal, twin.nets()[net].params, original.nets()[net].params)
    hidden = [s.nets()["generator"].params["hidden"]["kernel"] for s in (original, stranger)]
    assert (hidden[0] != hidden[1]).all()
    # Roles are part of the key: two nets of one module start differently.
    assert (hidden[0] != original.nets()["teacher"].params["hidden"]["kernel"]).all()
    for one in (original, twin, stranger):
        for _ in range(3):
            one.advance()
    for k in range(3):
        jax.tree.map(np.testing.assert_array_equal, twin.draws[k], original.draws[k])
    assert any((a["real"] != b["real"]).any() for a, b in zip(twin.draws, stranger.draws, strict=False))
