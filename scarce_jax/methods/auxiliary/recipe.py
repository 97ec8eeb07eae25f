"""Recipe of the method `auxiliary`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
from annotated_types import MinLen

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
    trusted_results,
)
from scarce_jax.methods.auxiliary.rival import confidence_table, infer_discriminator
from scarce_jax.methods.auxiliary.selection import selection_tables
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, as_long_as, compute_dtype
from scarce_jax.methods.consistency import ConsistencyStage, train_consistency
from scarce_jax.methods.frequencies import with_frequencies
from scarce_jax.methods.inputs import Augmented
from scarce_jax.methods.segmentation import full_size_network, measured, network, train_segmenter
from scarce_jax.models.auxiliary import AuxiliaryNet
from scarce_jax.ops.augment import Augment
from scarce_jax.ranges import Batch, PositiveShare, Share
from scarce_jax.recipe import (
    Artifact,
    Confident,
    Infer,
    Loss,
    MostConfident,
    NetState,
    Read,
    Recipe,
    Train,
    parse_origin,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemiStage(SegmenterStage):
    """Settings of the training on labelled and pseudo-labelled images.

    Attributes:
      threshold: least confidence, 0 to 1, at which a pixel of an unlabelled image gets a label; T_aux = 0.9 in the
        paper. Confidences are multiples of 1/255, rounded down, so 0.9 acts as 0.902 (`ops.confidence`). At 1 the paper
        has its baseline, the result `labelled_only`; here `semi` trains with unlabelled images that are all void.
      share: in place of the threshold, the share of the pixels that `segmenter` gives to each class which get a label,
        the most confident ones, after Zou et al. (2018, "Class-Balanced Self-Training"); None applies the threshold, as
        the paper does. With one threshold the confidences decide how often a class occurs among the labels, which
        shifts what the net takes for usual; with a share all classes keep their proportions.
      flip: whether pseudo labels and their confidences come from the mean class probabilities of an image and its
        mirror image. The paper takes those of the image alone.
      start: initial values of the net: those from which `segmenter` started, or the trained `segmenter`. The baselines
        start from the same values. The paper does not specify it. "initial" takes `init_from` in place of the
        segmenter's if it is set.
      labelled_batch: number of labelled images in each batch; the others are pseudo-labelled. None draws both from one
        shuffled union, as in the paper; batches then hold few labelled images if there are few.
      pseudo_augment: augmentation of the pseudo-labelled images, None for `augment`; it needs `labelled_batch`. Not in
        the paper: Yang et al. (CVPR 2022, "ST++: Make Self-training Work Better for Semi-supervised Semantic
        Segmentation") augment the unlabelled images alone strongly.
    """

    threshold: Share = 0.9
    share: PositiveShare | None = None
    flip: bool = False
    start: Literal["initial", "segmenter"] = "initial"
    labelled_batch: Batch | None = None
    pseudo_augment: Augment | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.pseudo_augment is not None:
            if self.labelled_batch is None:
                yield "labelled_batch", "a number of images, because pseudo_augment changes the others alone"
            if self.pseudo_augment.crop != self.augment.crop:
                yield "pseudo_augment.crop", f"that of augment, {self.augment.crop}, because both are in one batch"

    def trusted(self) -> Read:
        """The pseudo labels that the stage trains on."""
        read = Confident(threshold=self.threshold) if self.share is None else MostConfident(share=self.share)
        return Read(artifact=Artifact(stage="pseudo_labels", name="label"), read=read)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Config of the method `auxiliary`.

    Attributes:
      segmenter: training on the labelled images.
      auxiliary: training of the auxiliary net.
      semi: training on labelled and pseudo-labelled images.
      adversarial: training of the baseline of Hung et al., with `compare`; None omits it.
      consistency: the same for a baseline of today, weak-to-strong consistency after UniMatch.
      thresholds: confidence thresholds of the selection tables, one row each.
    """

    segmenter: SegmenterStage
    auxiliary: AuxiliaryStage
    semi: SemiStage
    adversarial: AdversarialStage | None = None
    consistency: ConsistencyStage | None = None
    thresholds: Annotated[tuple[Share, ...], MinLen(1)] = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        for name in ("semi", "adversarial", "consistency"):
            stage = getattr(self, name)
            if stage is not None and stage.init_from is not None and self.semi.start == "segmenter":
                yield f"{name}.init_from", "None, because it starts from the trained segmenter (semi.start)"


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Results `semi`, `labelled_only` (the net of `segmenter`), `trusted`, `pseudo_labels`; tables `selection*`.

    With `compare` there are also the results `labelled_long`, `all_labels`, `adversarial` and `consistency`, and the
    table `selection_confidences`.
    """
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
        infer_pseudo_labels(config, judged, config.semi.flip),
        _started(config, _semi(config, student)),
    ]
    results = {
        "semi": measured("semi", config, config.semi, student),
        "labelled_only": measured("labelled_only", config, config.segmenter, module, trained_in="segmenter"),
        **trusted_results(config, judged, config.semi.threshold, config.semi.flip, config.semi.trusted()),
    }
    tables = selection_tables("selection", config.thresholds, info)
    if config.compare:
        for name, ids in {"labelled_long": "fine", "all_labels": "all"}.items():
            stage = train_segmenter(name, config, config.semi, student, ids=ids, keys_as="segmenter")
            stages.append(_started(config, as_long_as(stage, "semi")))
            results[name] = measured(name, config, config.semi, student)
        if config.adversarial is not None:
            rival = full_size_network(config, config.adversarial, classes, "adversarial")
            stage = train_adversarial(config, config.adversarial, rival, classes, keys_as="segmenter")
            stages += [_started(config, stage), infer_discriminator(config, config.adversarial, stage)]
            tables |= confidence_table(config.semi.threshold, config.thresholds, config.adversarial.threshold, info)
            results["adversarial"] = measured("adversarial", config, config.adversarial, rival)
        if config.consistency is not None:
            rival = full_size_network(config, config.consistency, classes, "consistency")
            stage = train_consistency(config, config.consistency, rival, keys_as="segmenter")
            stages.append(_started(config, stage))
            results["consistency"] = measured("consistency", config, config.consistency, rival)
    return Recipe(
        stages=with_frequencies(config, stages, config.segmenter, classes),
        results=results,
        tables=tables,
    )


def _semi(config: Config, student: nn.Module) -> Train:
    """Stage `semi`. Raises InputError if `labelled_batch` leaves no room for the other images of a batch."""
    settings, labelled = config.semi, config.semi.labelled_batch
    trusted = settings.trusted()
    pseudo = trusted.artifact
    if labelled is None:
        ids, labels = ("fine", pseudo), ("fine", trusted)
        return train_segmenter("semi", config, settings, student, ids=ids, labels=labels, keys_as="segmenter")
    if not 0 < labelled < settings.batch:
        raise InputError(f"semi.labelled_batch is {labelled}; expected from 1 to semi.batch - 1, {settings.batch - 1}")
    # The budget does not reveal the classes of pseudo-labelled images, so only the labelled ones are drawn by class.
    alike = dataclasses.replace(settings, rare_class_sampling=None)
    stage = train_segmenter("semi", config, alike, student, ids=pseudo, labels=(trusted,), keys_as="segmenter")
    source, (turn,) = stage.sources["labelled"], stage.turns
    weight, augment = common.draws(settings), settings.pseudo_augment or settings.augment
    sources = {
        "pseudo": dataclasses.replace(source, batch=source.batch - labelled, transform=Augmented(augment)),
        "labelled": dataclasses.replace(source, ids="fine", labels=("fine",), batch=labelled, weight=weight),
    }
    loss = Together(turn.loss, "labelled", tuple(sources))
    return dataclasses.replace(stage, sources=sources, turns=(dataclasses.replace(turn, loss=loss),))


@dataclasses.dataclass(frozen=True)
class Together:
    """A loss of one source, applied to the concatenated rows of several sources.

    Attributes:
      source: name of the source that `loss` reads.
      parts: names of the sources that are concatenated.
    """

    loss: Loss
    source: str
    parts: tuple[str, ...]

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = common.concatenated(*(batch[name] for name in self.parts))
        return self.loss(params, nets, {self.source: rows}, shared, key)


def _started(config: Config, stage: Train) -> Train:
    """The stage with the initial values of `semi.start`."""
    net = stage.nets[SEGMENTER]
    if config.semi.start == "segmenter":
        net = dataclasses.replace(net, init_from=Artifact(stage="segmenter", name=SEGMENTER))
    elif net.init_from is None and (origin := config.semi.init_from or config.segmenter.init_from) is not None:
        net = dataclasses.replace(net, init_from=parse_origin(origin))
    return dataclasses.replace(stage, nets={**stage.nets, SEGMENTER: net})
