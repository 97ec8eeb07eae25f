"""The losses of Hung et al. by hand, and their training without unlabelled images."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.data.datasets import SCENES
from scarce_jax.methods import adversarial
from scarce_jax.methods.adversarial import DISCRIMINATOR, DiscriminatorLoss, SegmenterLoss
from scarce_jax.methods.common import SEGMENTER
from scarce_jax.recipe import NetState
from tests import tiny

KEY = jax.random.key(0)
WEIGHTS = np.array([0.5, -1.0, 2.0], np.float32)
LABELS = np.array([[[0, 2], [255, 1]]], np.uint8)
RNG = np.random.default_rng(0)
LABELLED, UNLABELLED = (RNG.normal(size=(1, 2, 2, 3)).astype(np.float32) for _ in range(2))


class Colours(nn.Module):
    """A segmenter whose logits are the image's three colours, times a parameter; its head's are twice as large."""

    auxiliary: bool = False

    @nn.compact
    def __call__(self, image, *, train):
        logits = image * self.param("scale", nn.initializers.ones, ())
        return logits, 2 * logits if self.auxiliary else None


class Weighted(nn.Module):
    """A discriminator that weights the classes of a map."""

    @nn.compact
    def __call__(self, maps, *, train):
        return maps @ self.param("weights", nn.initializers.zeros, (3,))


NETS = {
    SEGMENTER: NetState(params={"scale": jnp.ones(())}, batch_stats={}),
    DISCRIMINATOR: NetState(params={"weights": jnp.asarray(WEIGHTS)}, batch_stats={}),
}
LAMBDAS = {"lambda_adv": 0.3, "lambda_semi_adv": 0.2, "lambda_semi": 0.7}


def softmax(x):
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def softplus(x):
    return np.log1p(np.exp(x))


def segmenter_loss(batch, step=5, auxiliary=False, **changes):
    settings = {**LAMBDAS, "threshold": 0.5, "semi_start": 5, "aux_weight": 0.4, "class_weighting": None, **changes}
    loss = SegmenterLoss(module=Colours(auxiliary), discriminator=Weighted(), **settings)
    return loss(NETS[SEGMENTER].params, NETS, batch, {"step": step}, KEY)


BATCH = {"unlabelled": {"image": UNLABELLED}, "labelled": {"image": LABELLED, "label": LABELS}}


def by_hand():
    """Equation 2: cross-entropy, adversarial term of labelled and of unlabelled images, masked cross-entropy."""
    ours, theirs = softmax(LABELLED), softmax(UNLABELLED)
    places = [(0, 0, 0), (0, 1, 2), (1, 1, 1)]  # Row, column and class of the pixels that are not void.
    supervised = np.mean([-np.log(ours[0, i, j, k]) for i, j, k in places])
    deceived = np.mean([softplus(-ours[0, i, j] @ WEIGHTS) for i, j, _ in places])
    judged = theirs @ WEIGHTS
    trusted = judged >= 0  # A probability of a half.
    assert 0 < trusted.sum() < 4
    return supervised, deceived, softplus(-judged).mean(), -np.log(theirs.max(-1))[trusted].mean()


def test_the_segmenters_loss_is_equation_2():
    supervised, deceived, deceived_unlabelled, semi = by_hand()
    loss, out = segmenter_loss(BATCH)
    assert loss == pytest.approx(supervised + 0.3 * deceived + 0.2 * deceived_unlabelled + 0.7 * semi, rel=1e-5)
    assert out.metrics["semi_cross_entropy"] == pytest.approx(semi, rel=1e-5)
    # Before `semi_start` the discriminator's trust selects nothing that counts.
    early, _ = segmenter_loss(BATCH, step=4)
    assert early == pytest.approx(supervised + 0.3 * deceived + 0.2 * deceived_unlabelled, rel=1e-5)
    np.testing.assert_allclose(out.share["probabilities"], softmax(LABELLED), rtol=1e-5)
    assert out.weight == 3


def test_an_auxiliary_head_learns_from_the_labelled_images():
    places = [(0, 0, 0), (0, 1, 2), (1, 1, 1)]
    head = np.mean([-np.log(softmax(2 * LABELLED)[0, i, j, k]) for i, j, k in places])
    assert segmenter_loss(BATCH, auxiliary=True)[0] - segmenter_loss(BATCH)[0] == pytest.approx(0.4 * head, rel=1e-4)


def test_adversarial_learning_alone_is_the_loss_of_the_labelled_images():
    supervised, deceived, *_ = by_hand()
    loss, out = segmenter_loss({"labelled": BATCH["labelled"]}, lambda_semi=0.0, lambda_semi_adv=0.0)
    assert loss == pytest.approx(supervised + 0.3 * deceived, rel=1e-5)
    assert set(out.metrics) == {"cross_entropy", "adversarial"}


def test_the_discriminators_loss_is_equation_1_halved():
    loss = DiscriminatorLoss(Weighted(), 3)
    shared = {"probabilities": softmax(LABELLED)}
    found, _ = loss(NETS[DISCRIMINATOR].params, NETS, BATCH, shared, KEY)
    places = [(0, 0, 0), (0, 1, 2), (1, 1, 1)]
    real = np.mean([softplus(-WEIGHTS[k]) for *_, k in places])
    predicted = np.mean([softplus(softmax(LABELLED)[0, i, j] @ WEIGHTS) for i, j, _ in places])
    assert found == pytest.approx((real + predicted) / 2, rel=1e-5)


def test_unlabelled_images_are_read_only_for_a_loss():
    stage = tiny.auxiliary_config().adversarial

    def sources(**changes):
        config = adversarial.Config(dataset="scenes", adversarial=dataclasses.replace(stage, **changes))
        return set(adversarial.recipe(config, SCENES).stage("adversarial").sources)

    assert sources() == sources(lambda_semi=0.0) == sources(lambda_semi_adv=0.0) == {"labelled", "unlabelled"}
    assert sources(lambda_semi=0.0, lambda_semi_adv=0.0) == {"labelled"}
