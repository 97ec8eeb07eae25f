"""The recipe of the auxiliary confidence method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.sampling import RareClassSampling
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.methods import common
from scarce_jax.methods.adversarial import AdversarialStage, train_adversarial
from scarce_jax.methods.auxiliary.judge import (
    AuxiliaryStage,
    JudgedSegmenter,
    correctness_statistics,
    infer_pseudo_labels,
    infer_selection,
    train_auxiliary,
)
from scarce_jax.methods.auxiliary.selection import selection_tables
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, as_long_as, compute_dtype, with_frequencies
from scarce_jax.methods.segmentation import full_size_network, measured, network, train_segmenter
from scarce_jax.models.auxiliary import AuxiliaryNet
from scarce_jax.recipe import Artifact, Confident, Infer, Loss, NetState, Read, Recipe, Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemiStage(SegmenterStage):
    """Training on labelled and pseudo-labelled images.

    Attributes:
      threshold: T_aux, the confidence from which a pixel of an unlabelled image is a label; 0.9 in the paper.
      start: from the initial values that `segmenter` had, or from what it became; so do the stages
        that it is compared with. The paper does not say.
      labelled_batch: so many images of every batch are labelled ones, and the others pseudo-labelled. None draws all
        from one shuffled union, as in the paper; of few labelled images a batch then has few.
    """

    threshold: float = 0.9
    start: Literal["initial", "segmenter"] = "initial"
    labelled_batch: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Stages as in the module's docstring; `adversarial=None` leaves that comparison out.

    Attributes:
      thresholds: rows of the selection table.
    """

    segmenter: SegmenterStage
    auxiliary: AuxiliaryStage
    semi: SemiStage
    adversarial: AdversarialStage | None = None
    thresholds: tuple[float, ...] = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Results `semi`, `labelled_only` (the segmenter) and one per starred stage; tables `selection*`."""
    classes = len(info.classes)
    module = full_size_network(config, config.segmenter, classes, "segmenter")
    student = network(config, config.semi, classes)
    judge = AuxiliaryNet(classes=classes, width=config.auxiliary.width, dtype=compute_dtype(config))
    judged = JudgedSegmenter(module, judge, config.segmenter, config.auxiliary.size)
    stages: list[Train | Infer] = [
        train_segmenter("segmenter", config, config.segmenter, module),
        correctness_statistics(config, judged),
        train_auxiliary(config, config.auxiliary, judged),
        infer_selection(config, judged, config.thresholds),
        infer_pseudo_labels(config, judged),
        _semi(config, student),
    ]
    results = {
        "semi": measured("semi", config, config.semi, student),
        "labelled_only": measured("labelled_only", config, config.segmenter, module, trained_in="segmenter"),
    }
    if config.compare:
        for name, ids in {"labelled_long": "fine", "all_labels": "all"}.items():
            # As many steps as `semi` takes, whatever the number of images.
            stage = as_long_as(
                train_segmenter(name, config, config.semi, student, ids=ids, keys_as="segmenter"), "semi"
            )
            stages.append(_started(config, stage))
            results[name] = measured(name, config, config.semi, student)
        if config.adversarial is not None:
            rival = full_size_network(config, config.adversarial, classes, "adversarial")
            stage = train_adversarial(config, config.adversarial, rival, classes, keys_as="segmenter")
            stages.append(_started(config, stage))
            results["adversarial"] = measured("adversarial", config, config.adversarial, rival)
    return Recipe(
        stages=with_frequencies(config, stages, config.segmenter, classes),
        results=results,
        tables=selection_tables("selection", config.thresholds, info),
    )


def _semi(config: Config, student: nn.Module) -> Train:
    pseudo = Artifact(stage="pseudo_labels", name="label")
    trusted = Read(artifact=pseudo, read=Confident(threshold=config.semi.threshold))
    apart = config.semi.labelled_batch
    # Of pseudo-labelled images no class is known: where labelled ones are drawn apart, those alone are weighed.
    unweighed = config.semi if apart is None else dataclasses.replace(config.semi, rare_class_sampling=None)
    stage = train_segmenter(
        "semi",
        config,
        unweighed,
        student,
        ids=("fine", pseudo) if apart is None else pseudo,
        labels=("fine", trusted) if apart is None else (trusted,),
        keys_as="segmenter",
    )
    return _started(config, stage if apart is None else _with_labelled(stage, apart, common.draws(config.semi)))


@dataclasses.dataclass(frozen=True)
class Together:
    """A loss of one source on the rows of several, one after another.

    Attributes:
      loss: of the source `source`.
      parts: the sources that stand in its place.
    """

    loss: Loss
    source: str
    parts: tuple[str, ...]

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *(batch[name] for name in self.parts))
        return self.loss(params, nets, {self.source: rows}, shared, key)


def _with_labelled(stage: Train, labelled: int, weight: RareClassSampling | None) -> Train:
    """The stage, with `labelled` labelled images in each batch, which `weight` draws.

    Raises:
      InputError: there are not so many images in a batch, or the others are none.
    """
    source, (turn,) = stage.sources["labelled"], stage.turns
    if not 0 < labelled < source.batch:
        raise InputError(f"semi.labelled_batch is {labelled}; expected from 1 to semi.batch - 1, {source.batch - 1}")
    sources = {
        "pseudo": dataclasses.replace(source, batch=source.batch - labelled),
        "labelled": dataclasses.replace(source, ids="fine", labels=("fine",), batch=labelled, weight=weight),
    }
    loss = Together(turn.loss, "labelled", tuple(sources))
    return dataclasses.replace(stage, sources=sources, turns=(dataclasses.replace(turn, loss=loss),))


def _started(config: Config, stage: Train) -> Train:
    """The stage, with its net started from where the config says that `semi` starts."""
    if config.semi.start == "initial":
        return stage
    start = Artifact(stage="segmenter", name=SEGMENTER)
    segmenter = dataclasses.replace(stage.nets[SEGMENTER], init_from=start)
    return dataclasses.replace(stage, nets={**stage.nets, SEGMENTER: segmenter})
