"""Segmentation nets as stages and results of any method: loss, prediction, training, measurement."""

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
from scarce_jax.methods.common import FREQUENCIES, SEGMENTER, SegmenterStage
from scarce_jax.models.segmenters import Net
from scarce_jax.ops.resize import resize_bilinear, sample_nearest
from scarce_jax.recipe import Artifact, Eval, NetState, Out, Read, Train, Turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationLoss:
    """Cross-entropy of a net's logits, plus `aux_weight` times that of its auxiliary head if it has one.

    Logits of a lower resolution than the label are compared with the label's pixels at their places. The loss shares
    its "logits" with later turns.

    Attributes:
      fields: what of the batch goes into the net: ("image",) or ("image", "coarse").
      source: the batch's source.
      class_weighting: c of the class weights 1 / ln(c + p_class), with p_class from the stage's consts; None weighs all
        pixels alike.
    """

    module: nn.Module
    fields: tuple[str, ...] = ("image",)
    aux_weight: float
    source: str = "labelled"
    class_weighting: float | None = None

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        variables = {"params": params, "batch_stats": nets[SEGMENTER].stats}
        (logits, aux), updated = self.module.apply(
            variables, *(rows[f] for f in self.fields), train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        weights = class_weights(self.class_weighting, shared)
        labels = sample_nearest(rows["label"], logits.shape[1:3])
        loss = cross_entropy(logits, labels, class_weights=weights)
        metrics = {"cross_entropy": loss}
        if aux is not None:
            metrics["auxiliary_cross_entropy"] = cross_entropy(aux, rows["label"], class_weights=weights)
            loss += self.aux_weight * metrics["auxiliary_cross_entropy"]
        stats = {SEGMENTER: updated.get("batch_stats", {})}
        return loss, Out(metrics=metrics, stats=stats, share={"logits": logits}, weight=total_weight(labels, weights))


def class_weights(class_weighting: float | None, shared: Mapping) -> jax.Array | None:
    """[K] weights 1 / ln(c + p_class) of the classes in a cross-entropy; None where they are not weighed."""
    return None if class_weighting is None else inverse_log_weights(shared["p_class"], class_weighting)


def total_weight(labels: jax.Array, weights: jax.Array | None) -> jax.Array:
    """What a mean over pixels divides by: the pixels that are not void, counted or weighed by class ([K] or None)."""
    labelled = labels != IGNORE
    weighed = labelled if weights is None else jnp.where(labelled, jnp.take(weights, labels, mode="clip"), 0.0)
    return jnp.sum(weighed.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class SegmentationLogits:
    """The prediction of the net in the segmenter's role: logits [B, H, W, K] of the image's size.

    Attributes:
      fields: what of the batch goes into the net.
    """

    module: nn.Module
    fields: tuple[str, ...] = ("image",)

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        logits, _ = self.module.apply(nets[SEGMENTER].variables, *(batch[f] for f in self.fields), train=False)
        return resize_bilinear(logits, batch["image"].shape[1:3], align_corners=True)


def network(config: common.Experiment, stage: SegmenterStage, classes: int) -> nn.Module:
    """The stage's net: `module(image, train=...) -> (logits, auxiliary logits or None)`."""
    return stage.net.build(classes, common.compute_dtype(config))


def full_size_network(config: common.Experiment, stage: SegmenterStage, classes: int, name: str) -> nn.Module:
    """`network`, for what needs logits of the image's size; `name` is the stage's in the config.

    Raises:
      InputError: the net's are smaller.
    """
    if not stage.net.full_size:
        kinds = ", ".join(config.kind for config in get_args(Net) if config.full_size)
        raise InputError(
            f"{name}.net is {stage.net.kind}, whose logits are smaller than the image; expected one of {kinds} here"
        )
    return network(config, stage, classes)


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
    """A stage that trains a segmentation net on the images `ids` that also have the fields `having`.

    Args:
      fields: what goes into the net: ("image",) or ("image", "coarse").

    With `stage.class_weighting` the recipe needs the stage `frequencies` (`common.with_frequencies`).
    """
    weight = common.draws(stage)
    if weight is not None and ids not in ("fine", "all") and not config.budget.strong_categories:
        raise InputError(
            f"{name}.rare_class_sampling is {stage.rare_class_sampling}; expected none, since this stage reads images "
            f"whose classes the budget does not tell"
        )
    source = common.training_source(
        config,
        batch=stage.batch,
        size=stage.size,
        augment=stage.augment,
        ids=ids,
        take=take,
        fields=fields[1:],
        having=having,
        labels=labels,
        weight=weight,
    )
    loss = SegmentationLoss(
        module=module, fields=fields, aux_weight=stage.aux_weight, class_weighting=stage.class_weighting
    )
    predict = SegmentationLogits(module, fields)
    return Train(
        name=name,
        nets={SEGMENTER: common.trained(stage, module, net_inputs(stage.size, fields))},
        turns=(Turn(net=SEGMENTER, loss=loss),),
        sources={"labelled": source},
        steps=common.resolve_length(stage, name),
        accumulate=stage.accumulate,
        evals=common.during_training(config, stage, predict, common.evaluation_source(config, stage, fields[1:])),
        consts=frequency_consts(stage),
        keys_as=keys_as,
    )


def frequency_consts(stage: SegmenterStage) -> dict[str, Artifact]:
    """The consts of a stage whose cross-entropy weighs classes."""
    return {} if stage.class_weighting is None else {"p_class": Artifact(stage=FREQUENCIES, name="p_class")}


def net_inputs(size: tuple[int, int], fields: tuple[str, ...]) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Abstract inputs of a net that reads these fields."""
    return tuple(common.image_input(size) if field == "image" else common.mask_input(size) for field in fields)


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
    """The result `name`: the net that the stage `trained_in` (default: of that name) left.

    It is measured on the images that also have the fields `having`.
    """
    masks = ("coarse",) if composite or "coarse" in fields else ()
    return Eval(
        name=name,
        nets={SEGMENTER: common.frozen(module, net_inputs(stage.size, fields), trained_in or name, SEGMENTER)},
        predict=SegmentationLogits(module, fields),
        source=dataclasses.replace(common.evaluation_source(config, stage, masks), having=having),
        composite=composite,
    )
