"""Supervised segmentation: one stage, the method to read first.

A PSPNet (Zhao et al., 2017), or another net, trained with cross-entropy on the images of the budget that have fine
masks. With the target "tags" its encoder alone, as a classifier of image tags on all images: a trunk for `init_from` of
other runs (RUN:segmenter/classifier).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.losses import multi_label_cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage
from scarce_jax.methods.networks import classifier, network
from scarce_jax.recipe import (
    Artifact,
    Confident,
    Eval,
    Loss,
    Net,
    NetState,
    Out,
    Recipe,
    Train,
    Turn,
    interned,
)

CLASSIFIER = "classifier"
"""The role of the net that gives tags."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """One stage: `segmenter`.

    Attributes:
      target: what it learns: masks, or the image tags of the training split.
    """

    target: Literal["masks", "tags"] = "masks"
    segmenter: SegmenterStage


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Stage and result `segmenter`; with tags stage `segmenter` and result `tags`."""
    if config.target == "tags":
        return _tags(config, info)
    module = network(config, config.segmenter, len(info.classes))
    stage = train_segmenter("segmenter", config, config.segmenter, module, ids="fine", labels=("fine",))
    return Recipe(stages=(stage,), results={"segmenter": measured("segmenter", config, config.segmenter, module)})


def train_segmenter(
    name: str,
    config: common.Experiment,
    stage: SegmenterStage,
    module: nn.Module,
    *,
    ids: str | Artifact | tuple[str | Artifact, ...],
    labels: tuple[str | Artifact | Confident, ...],
    having: tuple[str, ...] = (),
    take: int | None = None,
    keys_as: str | None = None,
    class_weighting: float | None = None,
) -> Train:
    """A stage that trains a plain segmentation net on the images `ids` that also have the fields `having`.

    With `class_weighting` (see `common.segmentation_loss`) the recipe needs the stage `common.class_frequencies`.
    """
    fields = ("image",)
    source = common.training_source(
        config,
        batch=stage.batch,
        size=stage.size,
        augment=stage.augment,
        ids=ids,
        take=take,
        having=having,
        labels=labels,
    )
    loss = common.segmentation_loss(module, fields, stage.aux_weight, "labelled", class_weighting)
    weighted = class_weighting is not None
    return Train(
        name=name,
        nets={SEGMENTER: common.trained(stage, module, (common.image_input(stage.size),))},
        turns=(Turn(net=SEGMENTER, loss=loss),),
        sources={"labelled": source},
        steps=common.length(stage, name),
        settings=common.settings(stage) | ({"class_weighting": class_weighting} if weighted else {}),
        evals=common.during_training(config, stage, common.segmentation_predict(module, fields)),
        consts={"p_class": Artifact(stage="frequencies", name="p_class")} if weighted else {},
        keys_as=keys_as,
    )


def measured(
    name: str,
    config: common.Experiment,
    stage: SegmenterStage,
    module: nn.Module,
    *,
    trained_in: str | None = None,
    having: tuple[str, ...] = (),
    composite: bool = False,
) -> Eval:
    """The result `name`: the net that the stage `trained_in` (default: of that name) left.

    It is measured on the images that also have the fields `having`.
    """
    init = Artifact(stage=trained_in or name, name=SEGMENTER)
    source = common.evaluation_source(config, stage, ("coarse",) if composite else ())
    return Eval(
        name=name,
        nets={SEGMENTER: Net(module=module, inputs=(common.image_input(stage.size),), init_from=init)},
        predict=common.segmentation_predict(module, ("image",)),
        source=dataclasses.replace(source, having=having),
        composite=composite,
    )


def _tags(config: Config, info: DatasetInfo) -> Recipe:
    stage = config.segmenter
    module = classifier(config, stage, len(info.classes) - (info.background is not None))
    train = train_classifier("segmenter", config, stage, module, info.background)
    return Recipe(stages=(train,), results={"tags": tags_measured("tags", config, stage, module, "segmenter")})


def tags_measured(
    name: str, config: common.Experiment, stage: SegmenterStage, module: nn.Module, trained_in: str
) -> Eval:
    """The result `name`: the tag classifier that a stage left."""
    init = Artifact(stage=trained_in, name=CLASSIFIER)
    net = Net(module=module, inputs=(common.image_input(stage.size),), init_from=init)
    return dataclasses.replace(_tag_evaluation(config, stage, module), name=name, nets={CLASSIFIER: net})


def train_classifier(
    name: str, config: common.Experiment, stage: SegmenterStage, module: nn.Module, background: int | None
) -> Train:
    """A stage that trains a classifier of image tags on all training images that have them."""
    source = common.training_source(
        config,
        batch=stage.batch,
        size=stage.size,
        augment=stage.augment,
        ids="tags",
        fields=("tags",),
        labels=(),
    )
    return Train(
        name=name,
        nets={CLASSIFIER: common.trained(stage, module, (common.image_input(stage.size),))},
        turns=(Turn(net=CLASSIFIER, loss=tag_loss(module, background, "tagged")),),
        sources={"tagged": source},
        steps=common.length(stage, name),
        settings=common.settings(stage),
        evals=(_tag_evaluation(config, stage, module),) if stage.eval_every else (),
    )


def _tag_evaluation(config: common.Experiment, stage: SegmenterStage, module: nn.Module) -> Eval:
    """The measurement of a tag classifier on the evaluation split, in training or, with `nets`, as a result."""

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        return module.apply(nets[CLASSIFIER].variables, batch["image"], train=False)

    source = common.evaluation_source(config, stage, ("tags",))
    return Eval(
        name=config.eval_split,
        predict=predict,
        source=dataclasses.replace(source, labels=()),
        metrics="tags",
        every=stage.eval_every,
    )


@interned
def tag_loss(module: nn.Module, background: int | None, source: str) -> Loss:
    """Sigmoid cross-entropy of the net in the classifier's role against the tags of a source's rows."""

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[source]
        variables = {"params": params, "batch_stats": nets[CLASSIFIER].stats}
        logits, updated = module.apply(
            variables, rows["image"], train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return multi_label_cross_entropy(logits, rows["tags"], background=background), Out(
            stats={CLASSIFIER: updated.get("batch_stats", {})}
        )

    return loss
