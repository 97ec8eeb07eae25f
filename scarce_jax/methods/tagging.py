"""Classifiers of image tags as stages and results of any method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from scarce_jax.errors import InputError
from scarce_jax.losses import multi_label_cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.common import TrainStage
from scarce_jax.recipe import Eval, NetState, Out, Source, Train, Turn

CLASSIFIER = "classifier"
"""The role of the net that gives tags."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagLoss:
    """Sigmoid cross-entropy of the net in the classifier's role against the tags of a source's rows.

    Attributes:
      background: class that has no output; None if there is none.
    """

    module: nn.Module
    background: int | None
    source: str = "tagged"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        variables = {"params": params, "batch_stats": nets[CLASSIFIER].stats}
        logits, updated = self.module.apply(
            variables, rows["image"], train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        loss = multi_label_cross_entropy(logits, rows["tags"], background=self.background)
        return loss, Out(stats={CLASSIFIER: updated.get("batch_stats", {})})


@dataclasses.dataclass(frozen=True)
class TagLogits:
    """The prediction of the net in the classifier's role: logits [B, K], or [B, K - 1] without the background."""

    module: nn.Module

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        return self.module.apply(nets[CLASSIFIER].variables, batch["image"], train=False)


def train_classifier(
    name: str, config: common.Experiment, stage: TrainStage, module: nn.Module, background: int | None
) -> Train:
    """A stage that trains a classifier of image tags on all training images that have them.

    Raises:
      InputError: the stage asks to weigh classes, which only losses of pixels do.
    """
    weight = None
    if isinstance(stage, common.SegmenterStage):
        weight = common.draws(stage)
        if stage.class_weighting is not None:
            raise InputError(f"{name}.class_weighting is {stage.class_weighting}; expected none for image tags")
    source = common.training_source(
        config,
        batch=stage.batch,
        size=stage.size,
        augment=stage.augment,
        ids="tags",
        fields=("tags",),
        labels=(),
        weight=weight,
    )
    evaluations = common.during_training(config, stage, TagLogits(module), _evaluation_source(config, stage), "tags")
    return Train(
        name=name,
        nets={CLASSIFIER: common.trained(stage, module, (common.image_input(stage.size),))},
        turns=(Turn(net=CLASSIFIER, loss=TagLoss(module=module, background=background)),),
        sources={"tagged": source},
        steps=common.resolve_length(stage, name),
        accumulate=stage.accumulate,
        evals=evaluations,
    )


def tags_measured(name: str, config: common.Experiment, stage: TrainStage, module: nn.Module, trained_in: str) -> Eval:
    """The result `name`: the tag classifier that a stage left."""
    return Eval(
        name=name,
        nets={CLASSIFIER: common.frozen(module, (common.image_input(stage.size),), trained_in, CLASSIFIER)},
        predict=TagLogits(module),
        source=_evaluation_source(config, stage),
        metrics="tags",
    )


def _evaluation_source(config: common.Experiment, stage: TrainStage) -> Source:
    return dataclasses.replace(common.evaluation_source(config, stage, ("tags",)), labels=())
