"""Classifiers of image tags in the stages and results of any method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from scarce_jax.errors import InputError
from scarce_jax.losses import multi_label_cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.common import CachedStage, ImageStage
from scarce_jax.methods.inputs import cached, evaluation_source, net_inputs, training_source
from scarce_jax.recipe import Eval, NetState, Out, Train, Turn

CLASSIFIER = "classifier"
"""Role of the net that predicts tags."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagLoss:
    """Sigmoid cross-entropy of a tag classifier.

    Attributes:
      background: id of the class that has no tag; None if there is none.
      source: name of the source that the loss reads.
    """

    module: nn.Module
    background: int | None
    source: str = "tagged"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        logits, stats = common.apply_in_training(self.module, params, nets[CLASSIFIER], rows["image"], key=key)
        loss = multi_label_cross_entropy(logits, rows["tags"], background=self.background)
        return loss, Out(batch_stats={CLASSIFIER: stats})


@dataclasses.dataclass(frozen=True)
class TagLogits:
    """Prediction of a tag classifier: logits [B, K], or [B, K - 1] without the background."""

    module: nn.Module

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        return self.module.apply(nets[CLASSIFIER].variables, batch["image"], train=False)


def train_classifier(
    name: str, config: common.Experiment, stage: CachedStage, module: nn.Module, background: int | None
) -> Train:
    """A stage that trains a classifier on all training images that have tags.

    Raises:
      InputError: `stage.class_weighting` is set; only losses of pixels weight classes.
    """
    weight = None
    if isinstance(stage, common.SegmenterStage):
        weight = common.draws(stage)
        if stage.class_weighting is not None:
            raise InputError(f"{name}.class_weighting is {stage.class_weighting}; expected none for image tags")
    source = training_source(config, stage, ids="tags", fields=("tags",), labels=(), weight=weight)
    source = cached(name, stage, source, module, CLASSIFIER)
    return common.train(
        name,
        config,
        stage,
        nets={CLASSIFIER: common.trained(stage, module, net_inputs(stage.size))},
        turns=(Turn(net=CLASSIFIER, loss=TagLoss(module=module, background=background)),),
        sources={"tagged": source},
        predict=TagLogits(module),
        source=evaluation_source(config, stage, fields=("tags",), labels=()),
        metrics="tags",
    )


def tags_measured(name: str, config: common.Experiment, stage: ImageStage, module: nn.Module, trained_in: str) -> Eval:
    """The result `name`: tags predicted by the classifier of the stage `trained_in`, on the evaluation split."""
    return Eval(
        name=name,
        nets={CLASSIFIER: common.frozen(module, net_inputs(stage.size), trained_in, CLASSIFIER)},
        predict=TagLogits(module),
        source=evaluation_source(config, stage, fields=("tags",), labels=()),
        metrics="tags",
    )
