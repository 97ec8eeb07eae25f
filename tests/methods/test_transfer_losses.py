"""P-Net's losses, and its training against the segmenter: what each turn moves, and what lambda = 0 leaves alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.data.datasets import SCENES
from scarce_jax.losses import cross_entropy
from scarce_jax.methods import transfer
from scarce_jax.methods.common import SEGMENTER
from scarce_jax.methods.inputs import unaugmented
from scarce_jax.methods.segmentation import SegmentationLogits, SegmentationLoss
from scarce_jax.methods.transfer.lnet import LNET, ObjectnessLoss
from scarce_jax.methods.transfer.pnet import PNET, DeceivingLoss, PNetLoss
from scarce_jax.optim import Group
from scarce_jax.recipe import Artifact, NetState, Out, Turn
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import TrainInput
from scarce_jax.training.step import make_step
from tests import tiny
from tests.methods.pictures import CLASSES, JUDGE, made_pictures
from tests.models.shapes import random_variables


@pytest.fixture(scope="module")
def pictures():
    return made_pictures()


def test_losses_at_a_zero_last_layer_and_the_weight_of_samples(pictures):
    images, labels, logits = pictures
    params = random_variables(JUDGE.module, (1, 16, 16, 3))["params"]
    zero = {**params, "fc6": jax.tree.map(np.zeros_like, params["fc6"])}

    @jax.jit
    def judged(params, labels):
        batch = {"labelled": {"image": images, "label": labels}}
        return PNetLoss(JUDGE)(params, {}, batch, {"logits": logits}, None)

    class TwoPlain:
        """A segmentation loss of 2."""

        source = "labelled"

        def __call__(self, params, nets, batch, shared, key):
            return jnp.float32(2.0), Out(share={"logits": logits})

    @jax.jit
    def deceived(params):
        nets = {PNET: NetState(params=params, batch_stats={})}
        batch = {"labelled": {"image": images, "label": labels}}
        return DeceivingLoss(JUDGE, TwoPlain(), 0.5)({}, nets, batch, {}, None)

    loss, out = judged(zero, labels)
    np.testing.assert_allclose(loss, 2 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose([out.metrics["real"], out.metrics["predicted"]], np.log(2), rtol=1e-6)
    loss, out = deceived(zero)
    np.testing.assert_allclose(loss, 2 + 0.5 * np.log(2), rtol=1e-6)
    # The mean is over the samples that are there: three with both images, two and one with either alone.
    alone = [np.where(np.arange(2)[:, None, None] == k, labels, 0).astype(np.uint8) for k in range(2)]
    together, first, second = (float(judged(params, masks)[0]) for masks in (labels, *alone))
    assert first != pytest.approx(second) and together == pytest.approx((2 * first + second) / 3, rel=1e-5)


def test_the_lnet_tells_any_object_from_background_and_leaves_void_out(pictures):
    images, labels, _ = map(jnp.asarray, pictures)

    class Constant:
        def apply(self, variables, image, **kwargs):
            logits = jnp.broadcast_to(variables["params"]["logits"], (2, 9, 9, 1))
            return (logits, logits / 2), {}

    batch = {"labelled": {"image": images, "label": labels}}
    loss = ObjectnessLoss(Constant(), 0.4, 0)
    valid = np.asarray(labels) != 255
    share = (np.asarray(labels)[valid] > 0).mean()
    nets = {LNET: NetState(params={}, batch_stats={})}
    for logit in (0.0, 1.5):
        value, out = loss({"logits": jnp.float32(logit)}, nets, batch, {}, None)
        main, aux = (share * np.log1p(np.exp(-x)) + (1 - share) * np.log1p(np.exp(x)) for x in (logit, logit / 2))
        np.testing.assert_allclose(value, main + 0.4 * aux, rtol=1e-5)
        assert out.batch_stats == {LNET: {}}


def test_a_net_at_an_eighth_of_the_size_and_without_statistics_is_trained_on_every_eighth_label():
    labels = np.random.default_rng(0).integers(0, CLASSES, (2, 33, 33)).astype(np.uint8)
    labels[0, 8, 8] = 255
    logits = np.random.default_rng(1).normal(size=(2, 5, 5, CLASSES)).astype(np.float32)

    class Fixed:
        def apply(self, variables, image, *, train, mutable=None, rngs=None):
            return ((jnp.asarray(logits), None), {}) if train else (jnp.asarray(logits), None)

    loss = SegmentationLoss(module=Fixed(), aux_weight=0.4)
    nets = {SEGMENTER: NetState(params={}, batch_stats={})}
    rows = {"image": jnp.zeros((2, 33, 33, 3)), "label": jnp.asarray(labels)}
    value, out = loss({}, nets, {"labelled": rows}, {}, None)
    np.testing.assert_allclose(value, cross_entropy(jnp.asarray(logits), jnp.asarray(labels[:, ::8, ::8])), rtol=1e-6)
    assert out.batch_stats == {SEGMENTER: {}} and out.share["logits"].shape == logits.shape
    scores = SegmentationLogits(Fixed())(nets, rows, {})
    assert scores.shape == (2, 33, 33, CLASSES)
    np.testing.assert_allclose(scores[:, ::8, ::8], logits, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Rows in place of a data set's. `seed` is of their labels."""

    seed: int = 0

    canvas = (32, 32)

    def __len__(self):
        return 16

    def __getitem__(self, k):
        rng = np.random.default_rng(k)
        label = np.full((32, 32), 255, np.uint8)
        label[2:] = np.random.default_rng([self.seed, k]).integers(0, 12, (30, 1))
        return {"image": rng.integers(0, 256, (32, 32, 3), np.uint8), "label": label}


@functools.cache
def stage_named(name, lambda_adv):
    config = tiny.replaced(tiny.transfer_config(compare=True), "adversarial", lambda_adv=lambda_adv)
    return transfer.recipe(config, SCENES).stage(name)


def frozen(stage, role):
    """The stage with a net that does not move."""
    optim = dataclasses.replace(stage.nets[role].optim, groups=(Group(lr=0.0),))
    return dataclasses.replace(stage, nets={**stage.nets, role: dataclasses.replace(stage.nets[role], optim=optim)})


def after(stage, steps, **pictures):
    """Variables of every net at the start and after each of some steps; its nets are drawn. `pictures` by source."""
    mesh = tiny.mesh()
    state = state_lib.init_state(stage.nets, 10, 0, stage.keys_as, {}, mesh)
    inputs = {
        name: TrainInput(
            dataclasses.replace(source, transform=unaugmented),
            pictures.get(name, Pictures()),
            0,
            name,
            mesh,
            1,
            True,
        )
        for name, source in stage.sources.items()
    }
    step = make_step(stage, 10, inputs, mesh)
    keys = {"loss": jax.random.key(1), **{name: source.key for name, source in inputs.items()}}
    trail = [jax.device_get({role: net.variables for role, net in state.nets.items()})]
    for draws in zip(*(source.batches(0, steps) for source in inputs.values()), strict=True):
        state, _ = step(state, dict(zip(inputs, draws, strict=True)), keys, {})
        trail.append(jax.device_get({role: net.variables for role, net in state.nets.items()}))
    return trail


def equal(first, second):
    return [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)]


def test_each_turn_moves_its_own_net_alone_and_lambda_zero_is_plain_training():
    stage, base = stage_named("adversarial", 0.0), stage_named("adversarial", 10.0)
    layers = {SEGMENTER: "conv", PNET: "fc6"}
    once = {}
    # Also with gradients that pass through the other net.
    for still, moved in ((PNET, SEGMENTER), (SEGMENTER, PNET)):
        with tiny.little_optimised():
            begun, once[moved] = after(frozen(base, still), 1)
        assert all(equal(begun[still]["params"], once[moved][still]["params"]))
        kernels = [x[moved]["params"][layers[moved]]["kernel"] for x in (begun, once[moved])]
        assert not np.array_equal(*kernels)
    trail = after(stage, 3)
    # The comparison is trained without P-Net, as any segmenter is.
    plain = stage_named("lambda_zero", 10.0)
    module = stage.nets[SEGMENTER].module
    assert plain.turns == (Turn(net=SEGMENTER, loss=SegmentationLoss(module=module, aux_weight=0.4)),)
    assert plain.nets == {SEGMENTER: stage.nets[SEGMENTER]}
    for field in ("sources", "steps", "accumulate", "evals", "consts", "keys_as"):
        assert getattr(plain, field) == getattr(stage, field), field
    assert all(equal(after(plain, 3)[-1][SEGMENTER], trail[-1][SEGMENTER]))
    assert not np.array_equal(trail[0][PNET]["params"]["fc6"]["kernel"], trail[-1][PNET]["params"]["fc6"]["kernel"])
    # Lambda above zero is felt.
    felt, without = (x[SEGMENTER]["params"]["conv"]["kernel"] for x in (once[SEGMENTER], trail[1]))
    assert np.abs(felt - without).max() > 1e-5


def test_truths_of_strong_images_are_all_that_the_pnet_learns_from():
    config = tiny.transfer_config(compare=True)
    strong = tiny.replaced(config, "adversarial", truths="strong", lambda_adv=1.0)
    recipe = transfer.recipe(strong, SCENES)
    stage = recipe.stage("adversarial")
    labels = {name: (source.ids, source.labels) for name, source in stage.sources.items()}
    maps = Artifact(stage="label_maps", name="label")
    assert labels == {"labelled": (("fine", maps), ("fine", maps)), "strong": ("fine", ("fine",))}
    assert list(recipe.stage("lambda_zero").sources) == ["labelled"]
    # The segmenter stands still, so that only what the P-Net reads makes a difference to it.
    stage = frozen(stage, SEGMENTER)
    with tiny.little_optimised():
        first, second, third = (
            after(stage, 1, labelled=Pictures(seed), strong=Pictures(other))[-1][PNET]["params"]
            for seed, other in ((0, 0), (1, 0), (0, 1))
        )
    assert all(equal(first, second)) and not all(equal(first, third))
