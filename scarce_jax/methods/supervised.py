"""Supervised segmentation: one stage, the method to read first.

A PSPNet (Zhao et al., 2017), or another net, trained with cross-entropy on the images of the budget that have fine
masks. With the target "tags" its encoder alone, as a classifier of image tags on all images: a trunk for `init_from` of
other runs (RUN:segmenter/classifier).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.common import SegmenterStage, with_frequencies
from scarce_jax.methods.segmentation import measured, network, train_segmenter
from scarce_jax.methods.tagging import tags_measured, train_classifier
from scarce_jax.recipe import Recipe


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
    stage, classes = config.segmenter, len(info.classes)
    module = network(config, stage, classes)
    stages = [train_segmenter("segmenter", config, stage, module)]
    return Recipe(
        stages=with_frequencies(config, stages, stage, classes),
        results={"segmenter": measured("segmenter", config, stage, module)},
    )


def _tags(config: Config, info: DatasetInfo) -> Recipe:
    stage = config.segmenter
    module = stage.net.classifier(len(info.classes) - (info.background is not None), common.compute_dtype(config))
    train = train_classifier("segmenter", config, stage, module, info.background)
    return Recipe(stages=(train,), results={"tags": tags_measured("tags", config, stage, module, "segmenter")})
