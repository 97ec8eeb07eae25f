"""Segmentation nets in the stages and results of any method: loss, prediction, training and measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError
from scarce_jax.losses import cross_entropy, inverse_log_weights
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, SizedStage
from scarce_jax.methods.frequencies import FREQUENCIES
from scarce_jax.methods.inputs import cached, evaluation_source, inference_source, net_inputs, training_source
from scarce_jax.models.segmenters import SegmenterConfig
from scarce_jax.ops.logits import full_size
from scarce_jax.ops.resize import resize_bilinear, sample_nearest
from scarce_jax.recipe import Artifact, Eval, NetState, Out, Read, Train, Turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationLoss:
    """Cross-entropy of a net's logits, plus `aux_weight` times that of its auxiliary head if it has one.

    Logits of lower resolution than the label are compared with the label's pixels at the same places. The loss shares
    its "logits" (`ops.logits.Logits`) with later turns.

    Attributes:
      fields: fields of the batch that the net reads: ("image",) or ("image", "coarse").
      source: name of the source that the loss reads.
      class_weighting: c in the class weights 1 / ln(c + p_class), where p_class is a const of the stage; None weights
        all pixels equally.
    """

    module: nn.Module
    fields: tuple[str, ...] = ("image",)
    aux_weight: float
    source: str = "labelled"
    class_weighting: float | None = None

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        inputs = (rows[field] for field in self.fields)
        (logits, aux), stats = common.apply_in_training(self.module, params, nets[SEGMENTER], *inputs, key=key)
        weights = class_weights(self.class_weighting, shared)
        labels = sample_nearest(rows["label"], logits.shape[1:3])
        loss = cross_entropy(logits, labels, class_weights=weights)
        metrics = {"cross_entropy": loss}
        if aux is not None:
            metrics["auxiliary_cross_entropy"] = cross_entropy(aux, rows["label"], class_weights=weights)
            loss += self.aux_weight * metrics["auxiliary_cross_entropy"]
        weight = total_weight(labels, weights)
        return loss, Out(metrics=metrics, batch_stats={SEGMENTER: stats}, share={"logits": logits}, weight=weight)


def class_weights(class_weighting: float | None, shared: Mapping) -> jax.Array | None:
    """Class weights 1 / ln(c + p_class) of a cross-entropy, float32 [K]; None for equal weights."""
    return None if class_weighting is None else inverse_log_weights(shared["p_class"], class_weighting)


def total_weight(labels: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Denominator of a mean over pixels: the sum of the weights of all pixels that are not void, float32 [].

    Args:
      labels: integer, any shape; 255 = void.
      weights: class weights [K]; None counts pixels.
    """
    labelled = labels != IGNORE
    weighted = labelled if weights is None else jnp.where(labelled, jnp.take(weights, labels, mode="clip"), 0.0)
    return jnp.sum(weighted.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class SegmentationLogits:
    """Prediction of the segmenter: logits [B, H, W, K] at the size of the images.

    Attributes:
      fields: fields of the batch that the net reads.
    """

    module: nn.Module
    fields: tuple[str, ...] = ("image",)

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        inputs = (batch[field] for field in self.fields)
        logits, _ = self.module.apply(nets[SEGMENTER].variables, *inputs, train=False)
        return resize_bilinear(full_size(logits), batch["image"].shape[1:3], align_corners=True)


def network(config: common.Experiment, stage: SegmenterStage, classes: int) -> nn.Module:
    """The net of a stage: `module(image, train=...) -> (Logits, auxiliary Logits or None)`."""
    return stage.net.build(classes, common.compute_dtype(config))


def full_size_network(config: common.Experiment, stage: SegmenterStage, classes: int, name: str) -> nn.Module:
    """`network` for a stage that needs logits of the image's size.

    Args:
      name: name of the stage in the config.

    Raises:
      InputError: the logits of the net are smaller.
    """
    if not stage.net.full_size:
        kinds = ", ".join(net.kind for net in get_args(SegmenterConfig) if net.full_size)
        raise InputError(
            f"{name}.net is {stage.net.kind}, whose logits are smaller than the image; expected one of {kinds}"
        )
    return network(config, stage, classes)


def segmentation_loss(
    module: nn.Module, stage: SegmenterStage, fields: tuple[str, ...] = ("image",)
) -> SegmentationLoss:
    """The loss with the weights of a stage's settings."""
    weights = {"aux_weight": stage.aux_weight, "class_weighting": stage.class_weighting}
    return SegmentationLoss(module=module, fields=fields, **weights)


def train_segmenter(
    name: str,
    config: common.Experiment,
    stage: SegmenterStage,
    module: nn.Module,
    *,
    ids: str | Artifact | tuple[str | Artifact, ...] = "fine",
    labels: tuple[str | Artifact | Read, ...] = ("fine",),
    fields: tuple[str, ...] = ("image",),
    having: tuple[str, ...] = (),
    take: int | None = None,
    keys_as: str | None = None,
) -> Train:
    """A stage that trains a segmentation net.

    With `stage.class_weighting` the recipe needs the stage `frequencies` (`with_frequencies`).

    Args:
      ids, labels, having, take: images and labels of the training split, as in `Source`.
      fields: inputs of the net: ("image",) or ("image", "coarse").
      keys_as: as in `Train`.

    Raises:
      InputError: `stage.rare_class_sampling` is set, but the budget does not reveal the classes of the images.
    """
    weight = common.draws(stage)
    if weight is not None and ids not in ("fine", "all") and not config.budget.strong_categories:
        raise InputError(
            f"{name}.rare_class_sampling is {stage.rare_class_sampling}; expected none, since this stage reads images "
            f"whose classes the budget does not reveal"
        )
    source = training_source(
        config, stage, ids=ids, take=take, fields=fields[1:], having=having, labels=labels, weight=weight
    )
    source = cached(name, stage, source, module, SEGMENTER, *fields[1:])
    return common.train(
        name,
        config,
        stage,
        nets={SEGMENTER: common.trained(stage, module, net_inputs(stage.size, fields))},
        turns=(Turn(net=SEGMENTER, loss=segmentation_loss(module, stage, fields)),),
        sources={"labelled": source},
        predict=SegmentationLogits(module, fields),
        source=evaluation_source(config, stage, fields=fields[1:]),
        consts=frequency_consts(stage),
        keys_as=keys_as,
    )


def frequency_consts(stage: SegmenterStage) -> dict[str, Artifact]:
    """Consts of a training stage: `p_class` if its cross-entropy weights classes."""
    return {} if stage.class_weighting is None else {"p_class": Artifact(stage=FREQUENCIES, name="p_class")}


def measured(
    name: str,
    config: common.Experiment,
    stage: SegmenterStage,
    module: nn.Module,
    *,
    trained_in: str | None = None,
    fields: tuple[str, ...] = ("image",),
    having: tuple[str, ...] = (),
    composite: bool = False,
) -> Eval:
    """The result `name`: masks of a trained segmenter on the evaluation split.

    Args:
      trained_in: stage that trained the net; None is the stage `name`.
      fields: inputs of the net.
      having: fields that an image needs to be measured, as in `Source`.
      composite: keep the class of the coarse mask wherever it has one.
    """
    masks = ("coarse",) if composite or "coarse" in fields else ()
    return Eval(
        name=name,
        nets={SEGMENTER: common.frozen(module, net_inputs(stage.size, fields), trained_in or name, SEGMENTER)},
        predict=SegmentationLogits(module, fields),
        source=evaluation_source(config, stage, fields=masks, having=having),
        composite=composite,
    )


def measured_records(name: str, config: common.Experiment, stage: SizedStage, masks: Artifact | Read) -> Eval:
    """The result `name`: masks that a stage inferred for training images, against true masks that no stage reads."""
    ids = masks.artifact if isinstance(masks, Read) else masks
    source = inference_source(config, stage, ids=ids, labels=("fine",))
    return Eval(name=name, predict=None, source=source, inferred=masks, hidden_truth=True)
