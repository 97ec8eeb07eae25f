"""What any training stage can be asked for: accumulation, averaged parameters, the best measurement, class balance."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax import optim, runs
from scarce_jax.data.datasets import KNOWN
from scarce_jax.data.sampling import RareClassSampling
from scarce_jax.errors import InputError
from scarce_jax.losses import cross_entropy
from scarce_jax.methods import auxiliary, detailer, transfer
from scarce_jax.methods.segmentation import SegmentationLoss
from scarce_jax.models.pspnet import PSPNet
from scarce_jax.models.resnet import ResNet
from scarce_jax.models.tiny import TinyNet
from scarce_jax.optim import Optimizer, Schedule
from scarce_jax.recipe import Net, Out, Source, Train, Turn
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import TrainInput
from scarce_jax.training.step import make_step
from tests import tiny

SIZE, CLASSES = 8, 3
CONSTANT = Optimizer(kind="adam", lr=0.01, schedule=Schedule(kind="constant"))


class PlainNet(nn.Module):
    """Logits and auxiliary logits without batch statistics or dropout."""

    @nn.compact
    def __call__(self, image, train=False):
        x = nn.tanh(nn.Conv(4, (3, 3), name="conv")(image))
        return nn.Conv(CLASSES, (1, 1), name="classifier")(x), nn.Conv(CLASSES, (1, 1), name="aux_classifier")(x)


class NormalisedNet(nn.Module):
    """With batch statistics."""

    @nn.compact
    def __call__(self, image, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5, name="bn")(image)
        return nn.Conv(CLASSES, (1, 1), name="classifier")(x), None


def second_loss(params, nets, batch, shared, key):
    """Reads what the first turn shared of the same rows."""
    labels = batch["labelled"]["label"]
    logits, _ = PlainNet().apply({"params": params}, batch["labelled"]["image"])
    loss = cross_entropy(logits - jax.nn.softmax(shared["logits"]), labels)
    return loss, Out(metrics={"step": shared["step"] * 1.0}, weight=jnp.sum(labels != 255).astype(jnp.float32))


class AverageLoss(SegmentationLoss):
    """Reports the average of the parameters that it reads."""

    def __call__(self, params, nets, batch, shared, key):
        loss, out = super().__call__(params, nets, batch, shared, key)
        average = shared["averages"]["segmenter"]
        return loss, out.replace(metrics={"average": optax.tree.norm(average)}, share={})


class Rows:
    """Images whose number of labelled pixels differs much from row to row."""

    def __len__(self):
        return 16

    def __getitem__(self, k):
        random = np.random.default_rng(k)
        label = random.integers(0, CLASSES, (SIZE, SIZE)).astype(np.uint8)
        label[: k % SIZE] = 255
        return {"image": random.normal(size=(SIZE, SIZE, 3)).astype(np.float32), "label": label}


def as_it_is(row, key, consts):
    return row


def stepped(
    module, accumulate, devices=1, steps=3, optimizer=CONSTANT, two_turns=False, loss=SegmentationLoss, **fields
):
    """The state after some steps of a stage, and the last step's metrics."""
    loss = loss(module=module, aux_weight=0.0)
    image = (jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32),)
    nets, turns = {"segmenter": Net(module=module, inputs=image, optim=optimizer)}, [Turn(net="segmenter", loss=loss)]
    if two_turns:
        nets["second"] = Net(module=PlainNet(), inputs=image, optim=optimizer)
        turns.append(Turn(net="second", loss=second_loss))
    source = Source(dataset="rows", split="train", batch=8, transform=as_it_is)
    stage = Train(
        name="stage",
        nets=nets,
        turns=tuple(turns),
        sources={"labelled": source},
        steps=steps,
        accumulate=accumulate,
        **fields,
    )
    mesh = mesh_lib.make_mesh(jax.devices()[:devices])
    inputs = {"labelled": TrainInput(source, Rows(), 0, "stage/labelled", mesh, 1, True)}
    keys = {"labelled": inputs["labelled"].key, "loss": state_lib.named_key(0, "stage", "loss")}
    keys = jax.device_put(keys, mesh_lib.replicated(mesh))
    state = state_lib.init_state(stage.nets, steps, 0, "stage", {}, mesh)
    step = make_step(stage, steps, inputs, mesh)
    trail = []
    for draw in inputs["labelled"].batches(0, steps):
        state, metrics = step(state, {"labelled": draw}, keys, {})
        trail.append(jax.device_get(state.nets["segmenter"].params))
    return jax.device_get(state), {name: float(value) for name, value in metrics.items()}, trail


@pytest.mark.parametrize(("accumulate", "devices"), [(2, 1), (8, 1), (4, 2)])
def test_a_batch_in_parts_trains_as_the_whole_batch(accumulate, devices):
    whole, metrics, _ = stepped(PlainNet(), 1, two_turns=True)
    parts, metrics_of_parts, _ = stepped(PlainNet(), accumulate, devices, two_turns=True)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    jax.tree.map(close, parts.nets, whole.nets)
    assert metrics == pytest.approx(metrics_of_parts, rel=1e-4, abs=1e-6) and metrics["second/step"] == 2


def test_parts_count_by_their_labelled_pixels():
    """Row 8 of a batch has as many labelled pixels as row 0; a mean of the parts' means would be another gradient."""
    whole, _, _ = stepped(PlainNet(), 1, steps=1)
    parts, _, _ = stepped(PlainNet(), 8, steps=1)
    counts = [int((Rows()[k]["label"] != 255).sum()) for k in range(16)]
    assert min(counts) == SIZE and max(counts) == SIZE * SIZE
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), parts.nets, whole.nets)


def test_batch_statistics_are_those_of_the_parts_whatever_the_devices():
    one, _, _ = stepped(NormalisedNet(), 2, 1)
    two, _, _ = stepped(NormalisedNet(), 2, 2)
    whole, _, _ = stepped(NormalisedNet(), 1, 1)
    stats = [state.nets["segmenter"].batch_stats["bn"]["mean"] for state in (one, two, whole)]
    np.testing.assert_allclose(stats[0], stats[1], rtol=1e-5, atol=1e-6)
    # Two updates a step instead of one.
    assert np.abs(stats[0] - stats[2]).max() > 1e-4


SGD = Optimizer(lr=0.1, schedule=Schedule(kind="constant"))


def test_groups_have_batch_statistics_of_their_own_whatever_the_devices():
    net = TinyNet(CLASSES, dropout=0.0)

    def trained(accumulate, groups, devices=1):
        state, _, _ = stepped(net, accumulate, devices, optimizer=SGD, statistics_groups=groups)
        return state.nets["segmenter"]

    whole, one, four = trained(1, 1), trained(1, 4), trained(1, 4, devices=4)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, one, four)
    # The mean over equal groups is that of all; the variances leave out how the means of the groups differ.
    assert (one.batch_stats["bn"]["var"] < whole.batch_stats["bn"]["var"] - 1e-4).all()
    # In parts, the groups are those of a part.
    jax.tree.map(close, trained(2, 2).params, one.params)


def test_features_computed_again_change_no_result():
    net = PSPNet(CLASSES, ResNet(18, width=2), width=2, dropout=0.5, aux=False)
    plain, again = (stepped(net, 1, optimizer=SGD, remat=remat)[0] for remat in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), plain.nets, again.nets)


@pytest.mark.parametrize(("accumulate", "groups"), [(1, 0), (1, 3), (4, 4)])
def test_a_batch_that_does_not_divide_into_the_groups_is_refused(accumulate, groups):
    expected = f"stage.statistics_groups is {groups}; expected a divisor of {8 // accumulate}, the images of labelled"
    with pytest.raises(InputError, match=expected):
        stepped(PlainNet(), accumulate, statistics_groups=groups)


@pytest.mark.parametrize("accumulate", [0, 3])
def test_a_batch_that_does_not_divide_into_the_parts_is_refused(accumulate):
    with pytest.raises(InputError, match=f"stage.accumulate is {accumulate}; expected a divisor .* 8"):
        stepped(PlainNet(), accumulate)


def test_averaged_parameters_are_measured_and_stored(tiny_data, tmp_path):
    decay = 0.5
    state, _, trail = stepped(PlainNet(), 1, optimizer=dataclasses.replace(CONSTANT, ema=decay))
    net = state.nets["segmenter"]
    weights = decay ** np.arange(len(trail))[::-1]
    expected = jax.tree.map(lambda *p: sum(w * x for w, x in zip(weights, p, strict=True)) / weights.sum(), *trail)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, optim.averaged(net.opt_state, net.params), expected)
    jax.tree.map(close, state_lib.averaged(state.nets)["segmenter"].params, expected)

    mesh = mesh_lib.make_mesh(jax.devices()[:1])
    rate = Optimizer(lr=0.05, weight_decay=1e-4)
    plain = tiny.supervised_config(optim=rate)
    averaged = tiny.supervised_config(optim=dataclasses.replace(rate, ema=0.9), eval_every=3)
    runs.train(plain, tmp_path / "plain", data_dir=tiny_data, mesh=mesh)
    summary = runs.train(averaged, tmp_path / "averaged", data_dir=tiny_data, mesh=mesh)
    stored, other = (tiny.stored(tmp_path / name) for name in ("averaged", "plain"))
    kernels = [path for path in stored if path.endswith("kernel")]
    assert kernels and all((stored[path] != other[path]).any() for path in kernels)
    # What was measured after the last step is what is stored, and what a result measures again.
    last = json.loads((tmp_path / "averaged/segmenter/DONE").read_text())["metrics"]["val"]["miou"]
    assert last == summary["results"]["segmenter"]["miou"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_reads_the_averages_with_which_its_step_began(accumulate):
    average = dataclasses.replace(CONSTANT, ema=0.5)
    _, metrics, trail = stepped(PlainNet(), accumulate, optimizer=average, loss=AverageLoss)
    expected = jax.tree.map(lambda first, second: (0.5 * first + second) / 1.5, *trail[:2])
    assert metrics["segmenter/average"] == pytest.approx(float(optax.tree.norm(expected)), rel=1e-5)
    assert metrics["segmenter/average"] != pytest.approx(float(optax.tree.norm(trail[1])), rel=1e-4)


def test_training_stops_when_nothing_gets_better(tiny_data, tmp_path):
    """At a rate of almost nothing no measurement is better than the first."""
    mesh = mesh_lib.make_mesh(jax.devices()[:1])
    slow = Optimizer(lr=1e-30, schedule=Schedule(kind="constant"))
    config = tiny.supervised_config(steps=40, optim=slow, eval_every=2, keep_best="pixel_accuracy", patience=3)
    # Batch statistics move and with them the figures, so the best one may come later than the first.
    summary = runs.train(config, tmp_path / "run", data_dir=tiny_data, mesh=mesh)
    (stage,) = summary["stages"]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    measured = {line["step"]: line["pixel_accuracy"] for line in lines if line["kind"] == "eval"}
    best = max(measured, key=lambda step: (measured[step], -step))
    assert stage["kept_step"] == best
    assert stage["steps"] == min(best + 6, 40) == max(measured)
    assert summary["results"]["segmenter"]["pixel_accuracy"] == measured[best]


def test_class_weights_and_rare_class_sampling_serve_any_stage(tiny_data, tmp_path):
    config = tiny.detailer_config(compare=True, steps=2, class_weighting=1.02, rare_class_sampling=0.5)
    summary = runs.train(config, tmp_path / "run", data_dir=tiny_data, mesh=mesh_lib.make_mesh(jax.devices()[:1]))
    assert [stage["name"] for stage in summary["stages"]][:2] == ["frequencies", "detailer"]
    plain = runs.train(
        tiny.detailer_config(compare=True, steps=2),
        tmp_path / "plain",
        data_dir=tiny_data,
        mesh=mesh_lib.make_mesh(jax.devices()[:1]),
    )
    assert "frequencies" not in [stage["name"] for stage in plain["stages"]]
    weighed, alike = (tiny.stored(tmp_path / name) for name in ("run", "plain"))
    path = "detailer/segmenter/params/classifier/bias"
    assert (weighed[path] != alike[path]).any()


def test_classes_that_the_budget_does_not_tell_weigh_no_draw():
    """Else the tags of unlabelled images, which are in the dataset's index, would have a part in training."""
    info = KNOWN["scenes"]
    config = tiny.replaced(tiny.auxiliary_config(compare=True), "semi", rare_class_sampling=0.5)
    with pytest.raises(InputError, match="semi.rare_class_sampling is 0.5; expected none, since this stage reads"):
        auxiliary.recipe(config, info)
    apart = auxiliary.recipe(tiny.replaced(config, "semi", labelled_batch=4), info).stage("semi").sources
    assert apart["labelled"].weight == RareClassSampling(power=0.5) and apart["pseudo"].weight is None
    config = tiny.replaced(tiny.detailer_config(compare=True, student=True), "student", rare_class_sampling=0.5)
    with pytest.raises(InputError, match="student_detailed.rare_class_sampling"):
        detailer.recipe(config, info)
    # Every image has tags where categories are strong and weak.
    config = tiny.replaced(tiny.transfer_config(), "segmenter", rare_class_sampling=0.5)
    assert transfer.recipe(config, info).stage("segmenter").sources["labelled"].weight.power == 0.5
    for stage, message in {
        "cam": "cam.class_weighting is 1.1; expected none for",
        "lnet": "lnet.class_weighting",
    }.items():
        with pytest.raises(InputError, match=message):
            transfer.recipe(tiny.replaced(tiny.transfer_config(), stage, class_weighting=1.1), info)


def test_a_batch_must_divide_over_the_devices_in_each_of_its_parts():
    mesh = tiny.mesh(4)
    mesh_lib.check_batch(mesh, {"segmenter": 16}, 4)
    with pytest.raises(InputError, match="segmenter.batch: 8 examples in 4 parts do not divide over 4 .* to 16"):
        mesh_lib.check_batch(mesh, {"segmenter": 8}, 4)
