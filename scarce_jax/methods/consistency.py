"""Weak-to-strong consistency: what a net predicts of a weakly augmented image is the label of its strong views.

Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (UniMatch, CVPR 2023).
Without feature dropout it is FixMatch (Sohn et al., 2020) for segmentation with one view, and with the teacher "ema"
UniMatch V2 (Yang et al., TPAMI 2025) but for the complementary dropout.

The teacher predicts in evaluation mode, as in UniMatch V2; UniMatch's code does so only for what fills CutMix boxes, of
a second batch. Here they are filled from the same batch, and one prediction of each image serves both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.losses import confident_labels, cross_entropy, masked_mean
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage
from scarce_jax.methods.frequencies import with_frequencies
from scarce_jax.methods.inputs import evaluation_source, net_inputs, training_source
from scarce_jax.methods.segmentation import (
    SegmentationLogits,
    class_weights,
    frequency_consts,
    full_size_network,
    measured,
    total_weight,
)
from scarce_jax.models.tracing import dropping_features
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.logits import Logits, full_size
from scarce_jax.ops.strong import Strong, cutmix, strong_views
from scarce_jax.ranges import Batch, BelowOne, NonNegative, Share
from scarce_jax.recipe import NetState, Out, Recipe, Train, Turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyStage(SegmenterStage):
    """Settings of the training. The defaults are those of UniMatch on Pascal VOC.

    Attributes:
      threshold: least probability of a class at which it serves as a label.
      strong: ranges of the strong augmentation. `augment` is the weak one, which precedes it.
      views: number of strong views of each unlabelled image.
      feature_dropout: probability with which each channel of the backbone's features of the weakly augmented image is
        dropped, for a loss beside that of the strong views; 0 omits it.
      teacher: "student" is the net itself; "ema" the moving average of its parameters, which needs `optim.ema` (0.996
        in UniMatch V2) and is then also what is measured and stored. Batch statistics are the student's.
      unlabelled_batch: unlabelled images per step; None is as many as labelled ones.
      unlabelled_weight: weight of the loss on unlabelled images. The sum with the loss on labelled ones is halved.
    """

    threshold: Share = 0.95
    strong: Strong = Strong()
    views: Literal[1, 2] = 2
    feature_dropout: BelowOne = 0.5
    teacher: Literal["student", "ema"] = "student"
    unlabelled_batch: Batch | None = None
    unlabelled_weight: NonNegative = 1.0

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.teacher == "ema" and self.optim.ema is None:
            yield "teacher", "'student' while optim.ema is None; set the decay of the moving average, such as 0.996"
        if self.cache:
            yield "cache", "0, because strong views are other changes of the images in every step"
        if self.strong.cutmix and (self.unlabelled_batch or self.batch) // self.accumulate < 2:
            yield "strong.cutmix", "0, because one unlabelled image at a time has no other to be mixed with"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Config of the method `consistency`.

    Attributes:
      consistency: its one training stage.
    """

    has_baselines = False

    consistency: ConsistencyStage


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Stage and result `consistency`."""
    stage, classes = config.consistency, len(info.classes)
    module = full_size_network(config, stage, classes, "consistency")
    return Recipe(
        stages=with_frequencies(config, [train_consistency(config, stage, module)], stage, classes),
        results={"consistency": measured("consistency", config, stage, module)},
    )


def train_consistency(
    config: common.Experiment, stage: ConsistencyStage, module: nn.Module, *, keys_as: str | None = None
) -> Train:
    """Stage `consistency`. One source has the labelled images of the budget, the other one all other images."""
    names = (field.name for field in dataclasses.fields(ConsistencyLoss) if field.name != "module")
    loss = ConsistencyLoss(module=module, **{name: getattr(stage, name) for name in names})
    views = WeakAndStrong(stage.augment, stage.strong, stage.views)
    unlabelled = {"ids": "unlabelled", "labels": (), "batch": stage.unlabelled_batch or stage.batch, "transform": views}
    return common.train(
        "consistency",
        config,
        stage,
        nets={SEGMENTER: common.trained(stage, module, net_inputs(stage.size))},
        turns=(Turn(net=SEGMENTER, loss=loss),),
        sources={
            "labelled": training_source(config, stage, weight=common.draws(stage)),
            "unlabelled": training_source(config, stage, **unlabelled),
        },
        predict=SegmentationLogits(module),
        source=evaluation_source(config, stage),
        consts=frequency_consts(stage),
        keys_as=keys_as,
    )


@dataclasses.dataclass(frozen=True)
class WeakAndStrong:
    """Transform of unlabelled images: `strong_views`."""

    weak: Augment
    strong: Strong
    views: int

    def __call__(self, row: dict, key: jax.Array, consts: Mapping) -> dict:
        return strong_views(row, key, self.weak, self.strong, self.views)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyLoss:
    """(L + w * U) / 2: L is the cross-entropy of labelled images, U that of unlabelled ones with predicted labels.

    U is the mean over the strong views or, with feature dropout, the mean of that and of the loss of the weak view. As
    in UniMatch, labelled and weak images are one batch of the net, and the strong views another. Under accumulation the
    parts of a batch are weighted by their labelled pixels. The attributes are those of `ConsistencyStage`.
    """

    module: nn.Module
    threshold: float
    feature_dropout: float
    teacher: Literal["student", "ema"]
    unlabelled_weight: float
    aux_weight: float
    class_weighting: float | None

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        labelled, unlabelled, net = batch["labelled"], batch["unlabelled"], nets[SEGMENTER]
        weights = class_weights(self.class_weighting, shared)
        guess, confidence = self.pseudo_labels(net, unlabelled, shared)
        weak_key, strong_key, drop_key = jax.random.split(key, 3)
        weak = unlabelled["image"] if self.feature_dropout else unlabelled["image"][:0]
        images = jnp.concatenate([labelled["image"], weak])
        with dropping_features(self.feature_dropout, len(weak), drop_key):
            outputs, stats = common.apply_in_training(self.module, params, net, images, key=weak_key)
        logits, aux = common.rows(outputs, 0, len(labelled["image"]))
        loss = cross_entropy(logits, labelled["label"], class_weights=weights)
        metrics = {"cross_entropy": loss}
        if aux is not None:
            loss += self.aux_weight * cross_entropy(aux, labelled["label"], class_weights=weights)

        views = (unlabelled[name].swapaxes(0, 1) for name in ("strong", "boxes"))
        mixed = [cutmix((view, guess, confidence), boxes) for view, boxes in zip(*views, strict=True)]
        strong, labels, trust = (jnp.concatenate(arrays) for arrays in zip(*mixed, strict=True))
        net = net.replace(batch_stats=stats)
        (strong_logits, _), stats = common.apply_in_training(self.module, params, net, strong, key=strong_key)
        taught = metrics["strong"] = self.unlabelled_loss(strong_logits, labels, trust, weights)
        if self.feature_dropout:
            dropped = common.rows(outputs[0], len(labelled["image"]), len(weak))
            metrics["dropped"] = self.unlabelled_loss(dropped, guess, confidence, weights)
            taught = (taught + metrics["dropped"]) / 2
        loss = (loss + self.unlabelled_weight * taught) / 2
        metrics["selected"] = masked_mean(confidence >= self.threshold, guess != IGNORE)
        weight = total_weight(labelled["label"], weights)
        return loss, Out(metrics=metrics, batch_stats={SEGMENTER: stats}, weight=weight)

    def pseudo_labels(self, net: NetState, unlabelled: dict, shared: Mapping) -> tuple[jax.Array, jax.Array]:
        """The teacher's class of each pixel, uint8 [B, H, W] with 255 in the padding, and its probability [B, H, W]."""
        if self.teacher == "ema":
            net = net.replace(params=shared["averages"][SEGMENTER])
        logits, _ = self.module.apply(net.variables, unlabelled["image"], train=False)
        probabilities = jax.lax.stop_gradient(jax.nn.softmax(full_size(logits)))
        guess = jnp.where(unlabelled["inside"], probabilities.argmax(-1).astype(jnp.uint8), IGNORE)
        return guess, probabilities.max(-1)

    def unlabelled_loss(self, logits: Logits, labels: jax.Array, trust: jax.Array, weights: Any) -> jax.Array:
        """Cross-entropy of the pixels that reach the threshold, divided by the weight of all that have a label."""
        selected = confident_labels(labels, trust, self.threshold)
        share = total_weight(selected, weights) / jnp.maximum(total_weight(labels, weights), 1e-6)
        return share * cross_entropy(logits, selected, class_weights=weights)
