"""Adversarial semi-supervised segmentation, which the auxiliary confidence method is compared with.

Hung, Tsai, Liou, Lin, Yang: "Adversarial Learning for Semi-Supervised Semantic Segmentation" (2018). A fully
convolutional discriminator tells masks of people from masks of the segmenter, pixel by pixel; where it takes the
segmenter's mask of an unlabelled image for a person's, that mask is the label.

One stage of two turns: the segmenter against the discriminator, and the discriminator against both kinds of masks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.losses import (
    binary_cross_entropy,
    cross_entropy,
    masked_cross_entropy,
)
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, compute_dtype, with_frequencies
from scarce_jax.methods.segmentation import (
    SegmentationLogits,
    class_weights,
    frequency_consts,
    full_size_network,
    measured,
    total_weight,
)
from scarce_jax.models.discriminator import Discriminator
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Net, NetState, Out, Recipe, Source, Train, Turn

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
    """One stage: `adversarial`."""

    adversarial: AdversarialStage


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Stage `frequencies` where classes are weighted, stage and result `adversarial`."""
    stage, classes = config.adversarial, len(info.classes)
    module = full_size_network(config, stage, classes, "adversarial")
    stages = [train_adversarial(config, stage, module, classes)]
    return Recipe(
        stages=with_frequencies(config, stages, stage, classes),
        results={"adversarial": measured("adversarial", config, stage, module)},
    )


def train_adversarial(
    config: common.Experiment,
    stage: AdversarialStage,
    module: nn.Module,
    classes: int,
    *,
    keys_as: str | None = None,
) -> Train:
    """The stage `adversarial`: labelled images of the budget in one source, all the others in a second."""
    discriminator = Discriminator(classes=classes, width=stage.discriminator_width, dtype=compute_dtype(config))

    def source(**fields: Any) -> Source:
        return common.training_source(config, batch=stage.batch, size=stage.size, augment=stage.augment, **fields)

    maps = jax.ShapeDtypeStruct((1, *stage.size, classes), jnp.float32)
    segmenter_loss = SegmenterLoss(
        module=module,
        discriminator=discriminator,
        lambda_adv=stage.lambda_adv,
        lambda_semi_adv=stage.lambda_semi_adv,
        lambda_semi=stage.lambda_semi,
        threshold=stage.threshold,
        semi_start=stage.semi_start,
        class_weighting=stage.class_weighting,
    )
    evaluation = common.evaluation_source(config, stage)
    return Train(
        name="adversarial",
        nets={
            SEGMENTER: common.trained(stage, module, (common.image_input(stage.size),)),
            DISCRIMINATOR: Net(module=discriminator, inputs=(maps,), optim=stage.discriminator_optim),
        },
        turns=(
            Turn(net=SEGMENTER, loss=segmenter_loss),
            Turn(net=DISCRIMINATOR, loss=DiscriminatorLoss(discriminator, classes)),
        ),
        sources={
            "labelled": source(weight=common.draws(stage)),
            "unlabelled": source(ids="unlabelled", labels=()),
        },
        steps=common.resolve_length(stage, "adversarial"),
        accumulate=stage.accumulate,
        evals=common.during_training(config, stage, SegmentationLogits(module), evaluation),
        consts=frequency_consts(stage),
        keys_as=keys_as,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterLoss:
    """Equation 2 of Hung et al.: cross-entropy, deceiving the discriminator, and the masked cross-entropy.

    Labelled and unlabelled images are one batch of the net, so that its BatchNorm sees both alike. Attributes are those
    of the stage.
    """

    module: nn.Module
    discriminator: nn.Module
    lambda_adv: float
    lambda_semi_adv: float
    lambda_semi: float
    threshold: float
    semi_start: int
    class_weighting: float | None

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        labels = batch["labelled"]["label"]
        images = jnp.concatenate([batch["labelled"]["image"], batch["unlabelled"]["image"]])
        variables = {"params": params, "batch_stats": nets[SEGMENTER].stats}
        (logits, _), updated = self.module.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        logits = logits.astype(jnp.float32)
        labelled, unlabelled = logits[: len(labels)], logits[len(labels) :]
        weights = class_weights(self.class_weighting, shared)
        supervised = cross_entropy(labelled, labels, class_weights=weights)

        judged = self.discriminator.apply(nets[DISCRIMINATOR].variables, jax.nn.softmax(logits), train=True)
        deceived = binary_cross_entropy(judged[: len(labels)], 1.0, labels=labels)
        deceived_unlabelled = binary_cross_entropy(judged[len(labels) :], 1.0)
        predictions = unlabelled.argmax(-1).astype(jnp.uint8)
        trust = jax.nn.sigmoid(jax.lax.stop_gradient(judged[len(labels) :]))
        semi = masked_cross_entropy(unlabelled, predictions, trust, self.threshold, class_weights=weights)
        loss = supervised + self.lambda_adv * deceived + self.lambda_semi_adv * deceived_unlabelled
        loss += jnp.where(shared["step"] >= self.semi_start, self.lambda_semi * semi, 0.0)
        metrics = {
            "cross_entropy": supervised,
            "adversarial": deceived,
            "semi_cross_entropy": semi,
            "selected": jnp.mean(trust >= self.threshold),
        }
        return loss, Out(
            metrics=metrics,
            stats={SEGMENTER: updated.get("batch_stats", {})},
            share={"probabilities": jax.nn.softmax(labelled)},
            weight=total_weight(labels, weights),
        )


@dataclasses.dataclass(frozen=True)
class DiscriminatorLoss:
    """Equation 1 of Hung et al., halved as in their code: masks of people against the segmenter's, void left out."""

    discriminator: nn.Module
    classes: int

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        labels = batch["labelled"]["label"]
        # A void pixel is in no class, in the one-hot mask and in the probabilities alike, or it would give masks away.
        real = jax.nn.one_hot(labels, self.classes)
        predicted = shared["probabilities"] * (labels != IGNORE)[..., None]
        judged = self.discriminator.apply({"params": params}, jnp.concatenate([real, predicted]), train=True)
        of_real = binary_cross_entropy(judged[: len(labels)], 1.0, labels=labels)
        of_predicted = binary_cross_entropy(judged[len(labels) :], 0.0, labels=labels)
        metrics = {"real": of_real, "predicted": of_predicted}
        return (of_real + of_predicted) / 2, Out(metrics=metrics, weight=total_weight(labels, None))
