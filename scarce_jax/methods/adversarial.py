"""Adversarial semi-supervised segmentation, which the auxiliary confidence method is compared with.

Hung, Tsai, Liou, Lin, Yang: "Adversarial Learning for Semi-Supervised Semantic Segmentation" (2018). A fully
convolutional discriminator tells masks of people from masks of the segmenter, pixel by pixel; where it takes the
segmenter's mask of an unlabelled image for a person's, that mask is the label.

One stage of two turns: the segmenter against the discriminator, and the discriminator against both kinds of masks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.losses import (
    binary_cross_entropy,
    cross_entropy,
    inverse_log_weights,
    masked_cross_entropy,
)
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage
from scarce_jax.methods.networks import compute_dtype, full_size_network
from scarce_jax.methods.supervised import measured
from scarce_jax.models.discriminator import Discriminator
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Artifact, Net, NetState, Out, Recipe, Source, Train, Turn

DISCRIMINATOR = "discriminator"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialStage(SegmenterStage):
    """Training of segmenter and discriminator together; the defaults are those of Hung et al. (section 4).

    Attributes:
      discriminator_width: channels of its first convolution.
      discriminator_optim: its optimizer.
      lambda_adv: weight of deceiving the discriminator on labelled images.
      lambda_semi_adv: the same on unlabelled ones.
      lambda_semi: weight of the masked cross-entropy on unlabelled images.
      threshold: of the discriminator's output, above which the segmenter's own class is a label.
      semi_start: first step at which unlabelled masks are labels; before it the discriminator knows nothing.
    """

    discriminator_width: int = 64
    discriminator_optim: Optimizer = Optimizer(kind="adam", lr=1e-4, momentum=0.9, b2=0.99)
    lambda_adv: float = 0.01
    lambda_semi_adv: float = 0.001
    lambda_semi: float = 0.1
    threshold: float = 0.2
    semi_start: int = 5_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """One stage: `adversarial`.

    Attributes:
      class_weighting: c of the class weights 1 / ln(c + p_class) in the cross-entropy; None weighs all pixels alike.
    """

    adversarial: AdversarialStage
    class_weighting: float | None = None


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Stage `frequencies` where classes are weighted, stage and result `adversarial`."""
    module = full_size_network(config, config.adversarial, len(info.classes), "adversarial")
    stages = [train_adversarial(config, config.adversarial, module, len(info.classes), config.class_weighting)]
    if config.class_weighting is not None:
        stages.insert(0, common.class_frequencies(config, config.adversarial, len(info.classes)))
    result = measured("adversarial", config, config.adversarial, module)
    return Recipe(stages=tuple(stages), results={"adversarial": result})


def train_adversarial(
    config: common.Experiment,
    stage: AdversarialStage,
    module: nn.Module,
    classes: int,
    class_weighting: float | None,
    *,
    keys_as: str | None = None,
) -> Train:
    """The stage `adversarial`: labelled images of the budget in one source, all the others in a second."""
    dtype = compute_dtype(config)
    discriminator = Discriminator(classes=classes, width=stage.discriminator_width, dtype=dtype)

    def source(ids: str, labels: tuple[str, ...]) -> Source:
        return common.training_source(
            config, batch=stage.batch, size=stage.size, augment=stage.augment, ids=ids, labels=labels
        )

    maps = jax.ShapeDtypeStruct((1, *stage.size, classes), jnp.float32)
    return Train(
        name="adversarial",
        nets={
            SEGMENTER: common.trained(stage, module, (common.image_input(stage.size),)),
            DISCRIMINATOR: Net(module=discriminator, inputs=(maps,), optim=stage.discriminator_optim),
        },
        turns=(
            Turn(net=SEGMENTER, loss=segmenter_loss(stage, module, discriminator, class_weighting)),
            Turn(net=DISCRIMINATOR, loss=discriminator_loss(discriminator, classes)),
        ),
        sources={"labelled": source("fine", ("fine",)), "unlabelled": source("unlabelled", ())},
        steps=common.length(stage, "adversarial"),
        settings=common.settings(stage) | {"class_weighting": class_weighting},
        evals=common.during_training(config, stage, common.segmentation_predict(module, ("image",))),
        consts={} if class_weighting is None else {"p_class": Artifact(stage="frequencies", name="p_class")},
        keys_as=keys_as,
    )


def segmenter_loss(
    stage: AdversarialStage, module: nn.Module, discriminator: nn.Module, class_weighting: float | None
) -> Callable:
    """Equation 2 of Hung et al.: cross-entropy, deceiving the discriminator, and the masked cross-entropy.

    Labelled and unlabelled images are one batch of the net, so that its BatchNorm sees both alike.
    """

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        labels = batch["labelled"]["label"]
        images = jnp.concatenate([batch["labelled"]["image"], batch["unlabelled"]["image"]])
        variables = {"params": params, "batch_stats": nets[SEGMENTER].stats}
        (logits, _), updated = module.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        logits = logits.astype(jnp.float32)
        labelled, unlabelled = logits[: len(labels)], logits[len(labels) :]
        weights = None if class_weighting is None else inverse_log_weights(shared["p_class"], class_weighting)
        truth = cross_entropy(labelled, labels, class_weights=weights)

        judged = discriminator.apply(nets[DISCRIMINATOR].variables, jax.nn.softmax(logits), train=True)
        deceived = binary_cross_entropy(judged[: len(labels)], 1.0, labels=labels)
        deceived_unlabelled = binary_cross_entropy(judged[len(labels) :], 1.0)
        own = unlabelled.argmax(-1).astype(jnp.uint8)
        trust = jax.nn.sigmoid(jax.lax.stop_gradient(judged[len(labels) :]))
        semi = masked_cross_entropy(unlabelled, own, trust, stage.threshold, class_weights=weights)
        begun = shared["step"] >= stage.semi_start
        value = truth + stage.lambda_adv * deceived + stage.lambda_semi_adv * deceived_unlabelled
        value += jnp.where(begun, stage.lambda_semi * semi, 0.0)
        metrics = {
            "cross_entropy": truth,
            "adversarial": deceived,
            "semi_cross_entropy": semi,
            "selected": jnp.mean(trust >= stage.threshold),
        }
        share = {"probabilities": jax.nn.softmax(labelled)}
        return value, Out(metrics=metrics, stats={SEGMENTER: updated["batch_stats"]}, share=share)

    return loss


def discriminator_loss(discriminator: nn.Module, classes: int) -> Callable:
    """Equation 1 of Hung et al., halved as in their code: masks of people against the segmenter's, void left out."""

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        labels = batch["labelled"]["label"]
        # A void pixel is in no class, in the one-hot mask and in the probabilities alike, or it would give masks away.
        real = jax.nn.one_hot(labels, classes)
        made = shared["probabilities"] * (labels != IGNORE)[..., None]
        judged = discriminator.apply({"params": params}, jnp.concatenate([real, made]), train=True)
        of_real = binary_cross_entropy(judged[: len(labels)], 1.0, labels=labels)
        of_made = binary_cross_entropy(judged[len(labels) :], 0.0, labels=labels)
        return (of_real + of_made) / 2, Out(metrics={"real": of_real, "made": of_made})

    return loss
