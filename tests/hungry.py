"""A method whose predictions fit a device up to so many images: training takes no memory, inference does."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from scarce_jax.methods import common, supervised
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.frequencies import class_frequencies
from scarce_jax.recipe import Recipe

FITS = 2
"""Images per device."""


@dataclasses.dataclass(frozen=True)
class Hungry:
    """A prediction that answers as XLA's allocators do where the batch is too large."""

    predict: Any

    def __call__(self, nets, batch, consts):
        images = len(batch["label"] if "label" in batch else batch["image"])
        if images > FITS:
            raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: Out of memory allocating {images} images.")
        return self.predict(nets, batch, consts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """`infer`: also an inference pass (`frequencies`) after the training stage, as hungry as the measurement."""

    infer: bool = False
    segmenter: SegmenterStage


def recipe(config: Config, info: Any) -> Recipe:
    plain = supervised.recipe(supervised_config(config), info)
    stages = list(plain.stages)
    if config.infer:
        passed = class_frequencies(config, config.segmenter, len(info.classes))
        stages.append(dataclasses.replace(passed, predict=Hungry(passed.predict)))
    result = plain.results["segmenter"]
    return Recipe(
        stages=tuple(stages), results={"segmenter": dataclasses.replace(result, predict=Hungry(result.predict))}
    )


def supervised_config(config: Config) -> supervised.Config:
    """The config without what is added here."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    del fields["infer"]
    return supervised.Config(**fields)
