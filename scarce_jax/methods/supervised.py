"""Supervised segmentation: one training stage. Read this method first.

It trains PSPNet (Zhao et al., 2017), or another net, with cross-entropy on the images of the budget that have fine
masks. With target "tags" it trains the encoder of the net as a tag classifier on all images. Other runs can start from
that encoder with `init_from` RUN:segmenter/classifier.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.frequencies import with_frequencies
from scarce_jax.methods.segmentation import measured, network, train_segmenter
from scarce_jax.methods.tagging import tags_measured, train_classifier
from scarce_jax.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Config of the method `supervised`.

    Attributes:
      target: what the net learns to predict: masks, or image tags.
      segmenter: settings of the training.
    """

    has_baselines = False

    target: Literal["masks", "tags"] = "masks"
    segmenter: SegmenterStage

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.target == "tags":
            yield from common.without_fine_masks(self)


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Stage `segmenter` and result `segmenter`; with target "tags" stage `segmenter` and result `tags`."""
    stage, classes = config.segmenter, len(info.classes)
    if config.target == "tags":
        tags = classes - (info.background is not None)
        module = stage.net.classifier(tags, common.compute_dtype(config))
        train = train_classifier("segmenter", config, stage, module, info.background)
        return Recipe(stages=(train,), results={"tags": tags_measured("tags", config, stage, module, "segmenter")})
    module = network(config, stage, classes)
    stages = [train_segmenter("segmenter", config, stage, module)]
    return Recipe(
        stages=with_frequencies(config, stages, stage, classes),
        results={"segmenter": measured("segmenter", config, stage, module)},
    )
