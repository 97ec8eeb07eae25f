"""How often each class occurs in the labelled images, from which class weights follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax

from scarce_jax.losses import class_counts
from scarce_jax.methods.common import Experiment, SizedStage
from scarce_jax.methods.inputs import inference_source
from scarce_jax.recipe import Artifact, Infer, Mean, NetState, Train

FREQUENCIES = "frequencies"
"""Name of the stage that measures how often each class occurs in the labelled images."""


@dataclasses.dataclass(frozen=True)
class ClassShares:
    """Share of each image's pixels in each class, `p_class` [B, K]; void pixels count in the denominator."""

    classes: int

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        pixels = batch["height"] * batch["width"]  # [B]; padding beyond them is void
        return {"p_class": class_counts(batch["label"], self.classes) / pixels[:, None]}


def class_frequencies(config: Experiment, stage: SizedStage, classes: int) -> Infer:
    """Stage `frequencies`: the mean of `ClassShares` over the labelled images, `p_class` [K]."""
    source = inference_source(config, stage, ids="fine", labels=("fine",))
    return Infer(name=FREQUENCIES, nets={}, predict=ClassShares(classes), source=source, write=Mean())


def with_frequencies(
    config: Experiment, stages: list[Train | Infer], stage: SizedStage, classes: int
) -> tuple[Train | Infer, ...]:
    """The stages of a recipe, preceded by the stage `frequencies` if one of them reads it.

    Args:
      stage: settings with the size at which the labelled images are read.
    """
    if all(Artifact(stage=FREQUENCIES, name="p_class") not in other.consts.values() for other in stages):
        return tuple(stages)
    return class_frequencies(config, stage, classes), *stages
