"""Supervised segmentation: one stage, the method to read first.

PSPNet (Zhao et al., 2017) trained with cross-entropy on the images of the budget that have fine masks.
"""

from __future__ import annotations

import dataclasses

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage
from scarce_jax.models.pspnet import PSPNet
from scarce_jax.training.recipe import Artifact, Eval, Net, Recipe, Source, Train, Turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """One stage: `segmenter`."""

    segmenter: SegmenterStage


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Stage and result `segmenter`."""
    module = pspnet(config, config.segmenter, len(info.classes))
    stage = train_segmenter("segmenter", config, config.segmenter, module, ids="fine", labels=("fine",))
    return Recipe(stages=(stage,), results={"segmenter": measured("segmenter", config, config.segmenter, module)})


def pspnet(config: common.Experiment, stage: SegmenterStage, classes: int) -> PSPNet:
    """The stage's PSPNet."""
    return PSPNet(
        classes=classes,
        depth=stage.depth,
        width=stage.width,
        dropout=stage.dropout,
        dtype=common.compute_dtype(config),
    )


def train_segmenter(
    name: str,
    config: common.Experiment,
    stage: SegmenterStage,
    module: PSPNet,
    *,
    ids: str | Artifact,
    labels: tuple[str | Artifact, ...],
    take: int | None = None,
    keys_as: str | None = None,
) -> Train:
    """A stage that trains a plain PSPNet on the images `ids` with the labels `labels`."""
    fields = ("image",)
    source = Source(
        dataset=config.dataset,
        split=config.train_split,
        ids=ids,
        take=take,
        labels=labels,
        batch=stage.batch,
        size=stage.size,
        transform=common.augmented(stage.augment),
    )
    loss = common.segmentation_loss(module, fields, stage.aux_weight, "labelled")
    return Train(
        name=name,
        nets={SEGMENTER: Net(module=module, inputs=(common.image_input(stage.size),), optim=stage.optim)},
        turns=(Turn(net=SEGMENTER, loss=loss),),
        sources={"labelled": source},
        steps=common.length(stage, name),
        settings=common.settings(stage),
        evals=common.during_training(config, stage, common.segmentation_predict(module, fields)),
        keys_as=keys_as,
    )


def measured(
    name: str,
    config: common.Experiment,
    stage: SegmenterStage,
    module: PSPNet,
    *,
    trained_in: str | None = None,
    composite: bool = False,
) -> Eval:
    """The result `name`: the PSPNet that the stage `trained_in` (default: of that name) left."""
    init = Artifact(stage=trained_in or name, name=SEGMENTER)
    return Eval(
        name=name,
        nets={SEGMENTER: Net(module=module, inputs=(common.image_input(stage.size),), init_from=init)},
        predict=common.segmentation_predict(module, ("image",)),
        source=common.evaluation_source(config, stage, ("coarse",) if composite else ()),
        composite=composite,
    )
