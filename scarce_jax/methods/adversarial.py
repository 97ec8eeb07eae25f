"""Adversarial semi-supervised segmentation, a baseline of the method `auxiliary`.

Hung, Tsai, Liou, Lin and Yang, "Adversarial Learning for Semi-Supervised Semantic Segmentation" (2018). A fully
convolutional discriminator learns to distinguish true masks from predicted ones, pixel by pixel. On unlabelled images
the segmenter's own class is the label of each pixel that the discriminator believes to be true. Without a loss on
unlabelled images (both lambdas 0) none is read, and what is left is their adversarial learning on labelled images.

The method has one stage with two turns: the segmenter learns to deceive the discriminator, and the discriminator learns
to distinguish both kinds of masks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.losses import binary_cross_entropy, cross_entropy, masked_cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, compute_dtype
from scarce_jax.methods.frequencies import with_frequencies
from scarce_jax.methods.inputs import cached, evaluation_source, net_inputs, training_source
from scarce_jax.methods.segmentation import (
    SegmentationLogits,
    class_weights,
    frequency_consts,
    full_size_network,
    measured,
    total_weight,
)
from scarce_jax.models.discriminator import Discriminator
from scarce_jax.ops.logits import full_size
from scarce_jax.optim import Optimizer
from scarce_jax.ranges import CountOrZero, NonNegative, Share, Width
from scarce_jax.recipe import Net, NetState, Out, Recipe, Train, Turn

DISCRIMINATOR = "discriminator"
"""Role of the discriminator."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialStage(SegmenterStage):
    """Settings of the joint training of segmenter and discriminator. The defaults are from Hung et al., section 4.

    Attributes:
      discriminator_width: channels of the discriminator's first convolution; its other layers scale with it.
      discriminator_optim: optimizer of the discriminator.
      lambda_adv: weight of the adversarial loss on labelled images.
      lambda_semi_adv: weight of the adversarial loss on unlabelled images. If this and `lambda_semi` are 0, no
        unlabelled image is in a batch.
      lambda_semi: weight of the masked cross-entropy on unlabelled images.
      threshold: least output of the discriminator, 0 to 1, at which a predicted class serves as a label.
      semi_start: first step that uses the masked cross-entropy; before it the discriminator is not yet trained.
    """

    discriminator_width: Width = 64
    discriminator_optim: Optimizer = Optimizer(kind="adam", lr=1e-4, momentum=0.9, b2=0.99)
    lambda_adv: NonNegative = 0.01
    lambda_semi_adv: NonNegative = 0.001
    lambda_semi: NonNegative = 0.1
    threshold: Share = 0.2
    semi_start: CountOrZero = 5_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Config of the method `adversarial`.

    Attributes:
      adversarial: its one training stage.
    """

    has_baselines = False

    adversarial: AdversarialStage


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Stage and result `adversarial`."""
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
    """Stage `adversarial`. One source has the labelled images of the budget, another one all other images, if used."""
    discriminator = Discriminator(classes=classes, width=stage.discriminator_width, dtype=compute_dtype(config))
    maps = jax.ShapeDtypeStruct((1, *stage.size, classes), jnp.float32)
    segmenter_loss = SegmenterLoss(
        module=module,
        discriminator=discriminator,
        lambda_adv=stage.lambda_adv,
        lambda_semi_adv=stage.lambda_semi_adv,
        lambda_semi=stage.lambda_semi,
        threshold=stage.threshold,
        semi_start=stage.semi_start,
        aux_weight=stage.aux_weight,
        class_weighting=stage.class_weighting,
    )
    sources = {"labelled": training_source(config, stage, weight=common.draws(stage))}
    if stage.lambda_semi or stage.lambda_semi_adv:
        sources["unlabelled"] = training_source(config, stage, ids="unlabelled", labels=())
    return common.train(
        "adversarial",
        config,
        stage,
        nets={
            SEGMENTER: common.trained(stage, module, net_inputs(stage.size)),
            DISCRIMINATOR: Net(module=discriminator, inputs=(maps,), optim=stage.discriminator_optim),
        },
        turns=(
            Turn(net=SEGMENTER, loss=segmenter_loss),
            Turn(net=DISCRIMINATOR, loss=DiscriminatorLoss(discriminator, classes)),
        ),
        sources={name: cached("adversarial", stage, source, module, SEGMENTER) for name, source in sources.items()},
        predict=SegmentationLogits(module),
        source=evaluation_source(config, stage),
        consts=frequency_consts(stage),
        keys_as=keys_as,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterLoss:
    """Equation 2 of Hung et al.: cross-entropy, adversarial loss and masked cross-entropy.

    Labelled and unlabelled images are one batch of the net, so that its batch normalisation sees both. The terms of
    unlabelled images are left out if the batch has none. The attributes are those of `AdversarialStage`.
    """

    module: nn.Module
    discriminator: nn.Module
    lambda_adv: float
    lambda_semi_adv: float
    lambda_semi: float
    threshold: float
    semi_start: int
    aux_weight: float
    class_weighting: float | None

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        labels = batch["labelled"]["label"]
        images = common.concatenated(*(batch[name]["image"] for name in ("labelled", "unlabelled") if name in batch))
        (logits, aux), stats = common.apply_in_training(self.module, params, nets[SEGMENTER], images, key=key)
        logits = full_size(logits)
        labelled, unlabelled = logits[: len(labels)], logits[len(labels) :]
        weights = class_weights(self.class_weighting, shared)
        supervised = cross_entropy(labelled, labels, class_weights=weights)

        judged = self.discriminator.apply(nets[DISCRIMINATOR].variables, jax.nn.softmax(logits), train=True)
        deceived = binary_cross_entropy(judged[: len(labels)], 1.0, labels=labels)
        loss = supervised + self.lambda_adv * deceived
        if aux is not None:
            loss += self.aux_weight * cross_entropy(common.rows(aux, 0, len(labels)), labels, class_weights=weights)
        metrics = {"cross_entropy": supervised, "adversarial": deceived}
        if len(unlabelled):
            deceived_unlabelled = binary_cross_entropy(judged[len(labels) :], 1.0)
            predictions = unlabelled.argmax(-1).astype(jnp.uint8)
            trust = jax.nn.sigmoid(jax.lax.stop_gradient(judged[len(labels) :]))
            semi = masked_cross_entropy(unlabelled, predictions, trust, self.threshold, class_weights=weights)
            loss += self.lambda_semi_adv * deceived_unlabelled
            loss += jnp.where(shared["step"] >= self.semi_start, self.lambda_semi * semi, 0.0)
            metrics |= {"semi_cross_entropy": semi, "selected": jnp.mean(trust >= self.threshold)}
        share = {"probabilities": jax.nn.softmax(labelled)}
        weight = total_weight(labels, weights)
        return loss, Out(metrics=metrics, batch_stats={SEGMENTER: stats}, share=share, weight=weight)


@dataclasses.dataclass(frozen=True)
class DiscriminatorLoss:
    """Equation 1 of Hung et al., halved as in their code: true against predicted masks, without void pixels."""

    discriminator: nn.Module
    classes: int

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        labels = batch["labelled"]["label"]
        # Void pixels are zero in both kinds of masks. Otherwise they would reveal which masks are true.
        real = jax.nn.one_hot(labels, self.classes)
        predicted = shared["probabilities"] * (labels != IGNORE)[..., None]
        judged = self.discriminator.apply({"params": params}, jnp.concatenate([real, predicted]), train=True)
        of_real = binary_cross_entropy(judged[: len(labels)], 1.0, labels=labels)
        of_predicted = binary_cross_entropy(judged[len(labels) :], 0.0, labels=labels)
        metrics = {"real": of_real, "predicted": of_predicted}
        return (of_real + of_predicted) / 2, Out(metrics=metrics, weight=total_weight(labels))
