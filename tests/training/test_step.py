"""The compiled step: turns, frozen nets, what turns share, keys."""

import collections
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax.optim import Group, Optimizer, Schedule
from scarce_jax.recipe import Net, Out, Source, Train, Turn, interned
from scarce_jax.training import state as state_lib
from scarce_jax.training.inputs import TrainInput
from scarce_jax.training.step import make_step

traces = collections.Counter()
NOISE = 0.1


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
    made = Generator().apply({"params": params}, x + NOISE * jax.random.normal(key, x.shape))
    target = Generator().apply(nets["teacher"].variables, x)
    score = Discriminator().apply(nets["discriminator"].variables, made)
    loss = jnp.mean((made - target) ** 2) - shared["weight"] * score.mean()
    return loss, Out(metrics={"made": made.mean()}, share={"made": made})


def discriminator_loss(params, nets, batch, shared, key):
    traces["discriminator"] += 1
    both = jnp.concatenate([batch["other"]["x"], shared["made"]])
    variables = {"params": params, "batch_stats": nets["discriminator"].stats}
    scores, updated = Discriminator().apply(variables, both, train=True, mutable=["batch_stats"])
    real = jnp.arange(len(both)) < len(batch["other"]["x"])
    loss = optax.sigmoid_binary_cross_entropy(scores, real).mean()
    # What a turn sees of a net that an earlier turn moved is the moved net.
    metrics = {"generator": optax.tree.norm(nets["generator"].params)}
    return loss, Out(metrics=metrics, stats={"discriminator": updated["batch_stats"]})


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


def adversarial(name="adversarial", keys_as=None):
    def source(batch):
        return Source(dataset="points", split="train", batch=batch, transform=lambda row, key, consts: row)

    return Train(
        name=name,
        nets={
            "generator": Net(module=Generator(), inputs=X, optim=OPTIM),
            "discriminator": Net(module=Discriminator(), inputs=X, optim=OPTIM),
            "teacher": Net(module=Generator(), inputs=X),
        },
        turns=(Turn(net="generator", loss=generator_loss), Turn(net="discriminator", loss=discriminator_loss)),
        sources={"real": source(8), "other": source(16)},
        steps=10,
        settings={},
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
        self.txs = state_lib.transformations(self.stage.nets, 10)
        self.state = state_lib.init_state(self.stage.nets, self.txs, 0, drawn_as, {}, self.mesh)
        rows = self.rows or {name: Points(20, k) for k, name in enumerate(self.stage.sources)}
        self.inputs = {
            name: TrainInput(source, rows[name], 0, f"{drawn_as}/{name}", self.mesh, 1, True)
            for name, source in self.stage.sources.items()
        }
        keys = {name: source.key for name, source in self.inputs.items()}
        self.loss_key = keys["loss"] = state_lib.named_key(0, drawn_as, "loss")
        self.keys = jax.device_put(keys, mesh_lib.replicated(self.mesh))
        self.consts = mesh_lib.replicate(self.mesh, dict(self.stage.consts))
        self.step = make_step(self.stage, self.txs, self.inputs, self.mesh)
        self.streams = {name: source.batches(0, 10) for name, source in self.inputs.items()}
        self.draws = []

    def advance(self):
        draws = {name: next(stream) for name, stream in self.streams.items()}
        self.draws.append(jax.device_get({name: draw["decoded"]["x"] for name, draw in draws.items()}))
        self.state, metrics = self.step(self.state, draws, self.keys, self.consts)
        return {name: float(value) for name, value in metrics.items()}

    def nets(self):
        return jax.tree.map(lambda x: np.asarray(x).copy(), self.state.nets)


@pytest.fixture(scope="module")
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
    for mine, expected in ((after["discriminator"].params, params), (after["discriminator"].stats, out.stats)):
        expected = expected.get("discriminator", expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mine, expected)
    assert set(metrics) == {
        *(f"{net}/{name}" for net in ("generator", "discriminator") for name in ("loss", "grad_norm")),
        "generator/made",
        "discriminator/generator",
    }


def test_frozen_nets_stay_and_one_trace_serves_all_steps(started):
    teacher = started.nets()["teacher"]
    assert teacher.opt == () and jax.tree.leaves(started.nets()["generator"].opt)
    moved = started.nets()["generator"].params
    started.advance()
    traces.clear()
    for _ in range(3):
        started.advance()
    assert not traces and started.step._cache_size() == 1
    after = started.nets()
    jax.tree.map(np.testing.assert_array_equal, after["teacher"].params, teacher.params)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (after["generator"].params, moved)), strict=True))


def test_equal_arguments_make_one_function():
    made = []

    @interned
    def scaled(factor, *, offset=0.0):
        """Doc."""
        made.append(factor)
        return lambda x: factor[0] * x + offset

    assert scaled((2.0,)) is scaled((2.0,)) and scaled((2.0,), offset=1.0) is not scaled((2.0,))
    assert len(made) == 2 and scaled.__doc__ == "Doc."
    # What cannot be compared by value is not taken for equal.
    one, other = scaled([2.0]), scaled([2.0])
    assert one is not other and one(3.0) == other(3.0) == 6.0


def test_stages_of_the_same_functions_are_traced_once():
    def source(seed):
        return {name: Points(20, seed) for name in ("real", "other")}

    first = adversarial()
    second = dataclasses.replace(first, name="second")
    one = Started(first, rows=source(3))
    one.advance()
    traces.clear()
    other = Started(second, rows=source(4))
    assert other.step is one.step
    metrics = other.advance()
    assert not traces and metrics != one.advance()
    assert Started(adversarial()).step is not one.step, "its transforms are other functions"


def test_no_optimizer_state_for_frozen_groups():
    frozen = dataclasses.replace(OPTIM, momentum=0.9, groups=(Group(pattern="hidden", lr=0), Group()))
    net = Net(module=Generator(), inputs=X, optim=frozen)
    txs = state_lib.transformations({"g": net}, 10)
    opt = txs["g"].init(state_lib.init_net(net, jax.random.key(0)).params)
    sizes = [x.size for x in jax.tree.leaves(opt) if x.ndim]
    assert sum(sizes) == 5 * 3 + 3  # The layer "out" alone.


def test_keys_as_gives_the_draws_of_another_stage(started):
    twin = Started(adversarial("twin", keys_as="adversarial"))
    stranger = Started(adversarial("stranger"))
    original = Started(adversarial())
    for net in ("generator", "discriminator", "teacher"):
        jax.tree.map(np.testing.assert_array_equal, twin.nets()[net].params, original.nets()[net].params)
    hidden = [s.nets()["generator"].params["hidden"]["kernel"] for s in (original, stranger)]
    assert (hidden[0] != hidden[1]).all()
    # Roles are part of the key: two nets of one module start differently.
    assert (hidden[0] != original.nets()["teacher"].params["hidden"]["kernel"]).all()
    for one in (twin, stranger):
        for _ in range(3):
            one.advance()
    for k in range(3):
        jax.tree.map(np.testing.assert_array_equal, twin.draws[k], started.draws[k])
    assert any((a["real"] != b["real"]).any() for a, b in zip(twin.draws, stranger.draws, strict=False))
