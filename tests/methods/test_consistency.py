"""Weak-to-strong consistency: the loss by hand, its teachers, where features are dropped, and a run as a whole."""

import dataclasses
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import runs
from scarce_jax.data.datasets import SCENES
from scarce_jax.errors import InputError, Interrupted
from scarce_jax.methods import consistency
from scarce_jax.methods.consistency import ConsistencyLoss
from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.deeplab import DeepLabV2Config
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusConfig
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.models.fcn import FCNConfig
from scarce_jax.models.largefov import LargeFOVConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.segmenters import SegmenterConfig
from scarce_jax.models.tiny import TinyConfig
from scarce_jax.models.tracing import dropping_features, entering_head
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.strong import Strong
from scarce_jax.optim import Optimizer
from scarce_jax.ranges import check
from scarce_jax.recipe import NetState
from scarce_jax.training.signals import StopSignal
from tests import tiny

COUNT, SIZE, CLASSES = 2, (6, 8), 3
SCALE = np.array([1.0, 2.0, -1.5], np.float32)


class Scaled(nn.Module):
    """A net whose logits are the channels of the image, each times a parameter."""

    @nn.compact
    def __call__(self, image, *, train):
        scale = self.param("scale", nn.initializers.ones, (CLASSES,))
        return entering_head({"image": image})["image"] * scale, None


LOSS = ConsistencyLoss(
    module=Scaled(),
    threshold=0.7,
    feature_dropout=0.0,
    teacher="student",
    unlabelled_weight=0.5,
    aux_weight=0.4,
    class_weighting=None,
)


@pytest.fixture(scope="module")
def batch():
    draws = np.random.default_rng(0)

    def images(*counts):
        return draws.normal(size=(*counts, *SIZE, CLASSES)).astype(np.float32)

    label = draws.integers(0, CLASSES, (COUNT, *SIZE)).astype(np.uint8)
    label[0, :2] = 255
    inside = np.ones((COUNT, *SIZE), bool)
    inside[1, :, 6:] = False
    boxes = np.array([[[1, 4, 2, 7], [0, 0, 0, 0]], [[0, 0, 0, 0], [2, 6, 0, 5]]], np.int32)  # [B, views, 4]
    unlabelled = {"image": images(COUNT), "inside": inside, "strong": images(COUNT, 2), "boxes": boxes}
    return {"labelled": {"image": images(COUNT), "label": label}, "unlabelled": unlabelled}


def state(scale=SCALE):
    return {"segmenter": NetState(params={"scale": jnp.asarray(scale)}, batch_stats={})}


def computed(loss, batch, scale=SCALE, **shared):
    """(loss, its Out), and the gradient by the scale."""
    nets = state(scale)
    call = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, out), grads = call(nets["segmenter"].params, nets, batch, shared, jax.random.key(5))
    return (float(value), out), np.asarray(grads["scale"])


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def losses(logits, labels):
    """Cross-entropy of each pixel; labels of 255 give anything."""
    known = np.minimum(labels, CLASSES - 1).astype(int)
    return -np.take_along_axis(log_softmax(logits), known[..., None], -1)[..., 0]


def by_hand(batch, weights=(1, 1, 1), mask=None):
    """The loss of `LOSS` as its docstring says; `mask` [B, C] are factors of the weak images' features."""
    labelled, unlabelled = batch["labelled"], batch["unlabelled"]
    weights = np.append(weights, np.zeros(256 - len(weights)))  # By label; void has none.
    label = labelled["label"]
    supervised = (losses(labelled["image"] * SCALE, label) * weights[label]).sum() / weights[label].sum()
    probabilities = np.exp(log_softmax(unlabelled["image"] * SCALE))
    guess = np.where(unlabelled["inside"], probabilities.argmax(-1), 255)
    trust = probabilities.max(-1)
    total = count = 0
    for view in range(2):
        image, labels, confidence = (np.copy(x) for x in (unlabelled["strong"][:, view], guess, trust))
        for row in range(COUNT):
            top, bottom, left, right = unlabelled["boxes"][row, view]
            place = slice(top, bottom), slice(left, right)
            image[row][place] = unlabelled["strong"][row - 1, view][place]
            labels[row][place], confidence[row][place] = guess[row - 1][place], trust[row - 1][place]
        total += (losses(image * SCALE, labels) * weights[labels] * (confidence >= 0.7)).sum()
        count += weights[labels].sum()
    unsupervised = total / count
    if mask is not None:
        dropped = losses(unlabelled["image"] * mask[:, None, None] * SCALE, guess)
        weak = (dropped * weights[guess] * (trust >= 0.7)).sum() / weights[guess].sum()
        unsupervised = (unsupervised + weak) / 2
    selected = ((trust >= 0.7) & (guess != 255)).sum() / (guess != 255).sum()
    return (supervised + 0.5 * unsupervised) / 2, selected


def test_the_loss_is_that_of_the_paper(batch):
    (value, out), _ = computed(LOSS, batch)
    expected, selected = by_hand(batch)
    assert 0.2 < selected < 0.9
    assert value == pytest.approx(expected, rel=1e-5) and float(out.metrics["selected"]) == pytest.approx(selected)
    assert float(out.weight) == (batch["labelled"]["label"] != 255).sum()
    weighted = dataclasses.replace(LOSS, class_weighting=1.1)
    shares = np.array([0.1, 0.3, 0.6], np.float32)
    (value, _), _ = computed(weighted, batch, p_class=shares)
    assert value == pytest.approx(by_hand(batch, 1 / np.log(1.1 + shares))[0], rel=1e-5)


def test_features_of_the_weak_images_are_dropped_by_channels(batch):
    drop_key = jax.random.split(jax.random.key(5), 3)[2]
    kept = jax.random.bernoulli(jax.random.fold_in(drop_key, 0), 0.75, (COUNT, CLASSES))
    (value, out), _ = computed(dataclasses.replace(LOSS, feature_dropout=0.25), batch)
    assert value == pytest.approx(by_hand(batch, mask=np.asarray(kept) / 0.75)[0], rel=1e-5)
    (plain, other), _ = computed(LOSS, batch)
    # Neither the labelled images nor the teacher's are.
    for name in ("cross_entropy", "selected", "strong"):
        assert float(out.metrics[name]) == float(other.metrics[name])
    assert value != pytest.approx(plain, rel=1e-3)


def test_dropped_channels_are_whole_and_the_others_are_scaled():
    levels = {"low": jnp.ones((5, 4, 4, 40)), "high": jnp.ones((5, 2, 2, 40))}
    with dropping_features(0.5, 3, jax.random.key(0)):
        low, high = (np.asarray(x) for x in entering_head(levels).values())
    for x in (low, high):
        assert (x[:2] == 1).all() and set(np.unique(x[2:])) == {0, 2}
        assert (x == x[:, :1, :1]).all() and 0.3 < (x[2:, 0, 0] == 0).mean() < 0.7
    assert not np.array_equal(low[:, 0, 0], high[:, 0, 0]) and not np.array_equal(low[2], low[3])
    assert entering_head(levels) is levels


SMALL = {"backbone": VGGConfig(width=4, batch_norm=True, convolutions=(1,) * 5)}
NETS = {
    DeconvNetConfig: {**SMALL, "hidden": 4, "fc6_kernel": 1},
    DSNetConfig: {"width": 4},
    TinyConfig: {},
    **dict.fromkeys((PSPNetConfig, FCNConfig, DeepLabV2Config, DeepLabV3PlusConfig, LargeFOVConfig), SMALL),
}


@pytest.mark.parametrize("net", get_args(SegmenterConfig), ids=lambda net: net.kind)
def test_every_net_has_a_place_for_it(net):
    module, image = net(**NETS[net]).build(3), jnp.zeros((2, 64, 64, 3))
    with dropping_features(0.5, 1, jax.random.key(0)):
        jax.eval_shape(lambda key: module.init(key, image, train=False), jax.random.key(0))


def test_a_net_without_such_a_place_is_refused(batch):
    class Without(nn.Module):
        @nn.compact
        def __call__(self, image, *, train):
            return image * self.param("scale", nn.initializers.ones, (CLASSES,)), None

    loss = dataclasses.replace(LOSS, module=Without())
    computed(loss, batch)
    with pytest.raises(InputError, match=r"feature_dropout: the net has no place .*; set feature_dropout to 0, or "):
        computed(dataclasses.replace(loss, feature_dropout=0.5), batch)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_above_all_confidences_the_labelled_loss_alone_is_left(batch, dropout):
    loss = dataclasses.replace(LOSS, threshold=1.1, feature_dropout=dropout)
    (value, out), gradient = computed(loss, batch)
    (labelled, _), expected = computed(dataclasses.replace(LOSS, unlabelled_weight=0.0), batch)
    assert value == pytest.approx(labelled) == pytest.approx(float(out.metrics["cross_entropy"]) / 2)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert float(out.metrics["selected"]) == 0 and value > 0.1


def test_no_gradient_reaches_the_teacher(batch):
    loss = dataclasses.replace(LOSS, teacher="ema", threshold=0.5)

    def of_teacher(average):
        nets = state()
        shared = {"averages": {"segmenter": {"scale": average}}}
        return loss(nets["segmenter"].params, nets, batch, shared, jax.random.key(0))[0]

    assert not np.asarray(jax.jit(jax.grad(of_teacher))(jnp.asarray(SCALE))).any()
    # Nor to the student by way of its own labels.
    student = computed(dataclasses.replace(loss, teacher="student"), batch)[1]
    fixed = computed(loss, batch, averages=jax.tree.map(np.asarray, {"segmenter": {"scale": SCALE}}))[1]
    np.testing.assert_allclose(student, fixed, rtol=1e-6)


def test_the_average_teaches_where_it_is_asked_to(batch):
    unsure = {"segmenter": {"scale": 0.01 * SCALE}}
    loss = dataclasses.replace(LOSS, teacher="ema")
    (own, _), _ = computed(LOSS, batch, averages=unsure)
    (same, _), _ = computed(loss, batch, averages={"segmenter": {"scale": SCALE}})
    (other, out), _ = computed(loss, batch, averages=unsure)
    assert own == pytest.approx(same) == pytest.approx(by_hand(batch)[0], rel=1e-5)
    assert float(out.metrics["selected"]) == 0 and other == pytest.approx(float(out.metrics["cross_entropy"]) / 2)


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match=r"--consistency.teacher 'ema': expected 'student' while optim.ema is None"):
        check(tiny.consistency_config(teacher="ema"))
    check(tiny.consistency_config(teacher="ema", optim=Optimizer(lr=0.1, ema=0.9)))
    with pytest.raises(InputError, match=r"--consistency.cache 2: expected 0, because strong views are other changes"):
        check(tiny.consistency_config(cache=2))
    for changes in ({"unlabelled_batch": 1}, {"accumulate": 8}):
        with pytest.raises(InputError, match=r"--consistency.strong.cutmix 0.5: expected 0, because one unlabelled"):
            check(tiny.consistency_config(**changes))
        check(tiny.consistency_config(strong=Strong(cutmix=0), **changes))


def test_it_reads_no_label_of_unlabelled_images():
    (stage,) = consistency.recipe(tiny.consistency_config(unlabelled_batch=4), SCENES).stages
    labelled, unlabelled = stage.sources["labelled"], stage.sources["unlabelled"]
    assert (labelled.ids, labelled.labels, labelled.batch) == ("fine", ("fine",), 8)
    assert (unlabelled.ids, unlabelled.labels, unlabelled.batch) == ("unlabelled", (), 4)


EMA = {"teacher": "ema", "optim": Optimizer(lr=0.05, ema=0.9)}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    """A finished run on one device."""
    folder = tmp_path_factory.mktemp("consistency")
    runs.train(tiny.consistency_config(**EMA), folder, data_dir=tiny_data, mesh=tiny.mesh(1))
    return folder


def test_interrupted_it_goes_on_with_the_same_bits(run, tmp_path, tiny_data, monkeypatch):
    asked = []
    monkeypatch.setattr(StopSignal, "agreed", lambda self: asked.append(self) or len(asked) == 4)
    train = lambda: runs.train(tiny.consistency_config(**EMA), tmp_path, data_dir=tiny_data, mesh=tiny.mesh(1))  # noqa: E731
    with pytest.raises(Interrupted, match="step 4"):
        train()
    assert train()["results"]["consistency"]["images"] == tiny.SIZES["val"]
    before, after = tiny.stored(run), tiny.stored(tmp_path)
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)


def test_two_devices_give_the_result_of_one(run, tmp_path, tiny_data):
    summary = runs.train(tiny.consistency_config(**EMA), tmp_path, data_dir=tiny_data, mesh=tiny.mesh(2))
    assert summary["devices"] == 2
    before, after = tiny.stored(run), tiny.stored(tmp_path)
    for path, value in before.items():
        np.testing.assert_allclose(after[path], value, rtol=0, atol=1e-5, err_msg=path)
