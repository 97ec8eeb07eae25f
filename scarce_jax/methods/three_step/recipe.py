"""The recipe of the three-step method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from scarce_jax.data.sampling import ClassBalance
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.methods import common
from scarce_jax.methods.common import compute_dtype
from scarce_jax.methods.inputs import (
    as_stored,
    evaluation_source,
    image_input,
    inference_source,
    net_inputs,
    training_source,
)
from scarce_jax.methods.segmentation import measured, network, train_segmenter
from scarce_jax.methods.tagging import CLASSIFIER, tags_measured, train_classifier
from scarce_jax.methods.three_step.binary import BINARY, BinaryStages
from scarce_jax.methods.three_step.cams import STATUS, ClassMaps, CompactMaps, RefinedLabels
from scarce_jax.methods.three_step.classifier import with_held_out, with_weight
from scarce_jax.methods.three_step.config import Config
from scarce_jax.methods.three_step.irnet import (
    ENCODER,
    IRNET,
    Boundaries,
    MeanDisplacement,
    RelationLoss,
    WalkedLabels,
)
from scarce_jax.methods.three_step.left_out import (
    Kept,
    KeptDraws,
    KeptMaps,
    class_id,
    measured_on_kept,
    source_of_kept,
    trained_on_kept,
)
from scarce_jax.models import irnet
from scarce_jax.models.irnet import TAPS, IRNet
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.tags import AveragedFeatures, TagClassifier
from scarce_jax.recipe import Artifact, Chosen, Eval, Infer, Mean, Net, Recipe, Source, Table, Train, Turn, Views


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """The recipe with the results `segment_tta`, `segment`, `irnet`, `cam` (after the CRF) and `classifier` (tags).

    With `config.binary` it also has `segment_tta_added`, with the class that was left out, and `binary` (its tag). Its
    table is `displacement`.

    Raises:
      InputError: the dataset has no background, or no class of the name to leave out, or IRNet's ResNet has no weights
        to start from.
    """
    if info.background is None:
        raise InputError(f"three_step: dataset {info.name} has no background class; use a dataset that has one")
    classes = len(info.classes)
    classifier = config.classifier.net.classifier(classes - 1, compute_dtype(config))
    left_out = None if config.left_out is None else class_id(config.left_out, info)
    kept = None if left_out is None else Kept.without(left_out, info)
    binary = None if config.binary is None else BinaryStages(config, info, left_out)
    module = network(config, config.segmenter, classes)
    pseudo = labels = Artifact(stage="pseudo_labels", name="label")
    irnet_stages = _IRNetStages(config, classifier, info.background)
    if config.add_to_labels:
        labels = Artifact(stage="added_labels", name="label")
    stages = [
        _train_classifier(config, classifier, info.background, kept),
        *([binary.train()] if binary else []),
        _infer_cams("cams", config, classifier, info, kept, ids="tags", fields=("tags",)),
        _infer_labels("affinity_labels", config, info, "cams", confident=True),
        irnet_stages.train(),
        irnet_stages.infer_displacement(),
        irnet_stages.infer_walk("pseudo_labels", "cams", "affinity_labels"),
        *([binary.infer_maps(), binary.infer_labels(pseudo)] if config.add_to_labels else []),
        train_segmenter("segmenter", config, config.segmenter, module, ids=labels, labels=(labels,)),
        _infer_cams("eval_cams", config, classifier, info, kept, split=config.eval_split),
        _infer_labels("cam_labels", config, info, "eval_cams"),
        irnet_stages.infer_walk("irnet_labels", "eval_cams", "cam_labels"),
    ]
    segment = measured("segment", config, config.segmenter, module, trained_in="segmenter")
    segment_tta = dataclasses.replace(segment, name="segment_tta", views=config.tta)
    tags = tags_measured("classifier", config, config.classifier, classifier, "classifier")
    added = {}
    if binary:
        added = {"segment_tta_added": binary.added(segment_tta, "segment_tta_added"), BINARY: binary.measured()}
    return Recipe(
        stages=tuple(stages),
        results={
            "segment_tta": segment_tta,
            "segment": segment,
            "irnet": _measured_labels("irnet", config, Artifact(stage="irnet_labels", name="label")),
            "cam": _measured_labels("cam", config, Artifact(stage="cam_labels", name="refined")),
            "classifier": tags if kept is None else measured_on_kept(tags, classifier, kept),
            **added,
        },
        tables={"displacement": _displacement_table()},
    )


def _train_classifier(config: Config, classifier: AveragedFeatures, background: int, kept: Kept | None) -> Train:
    settings = config.classifier
    stage = train_classifier("classifier", config, settings, classifier, background)
    if settings.balance is not None:
        stage = with_weight(stage, BalanceObjects(settings.balance, background))
    if kept is not None:
        (source,) = stage.sources.values()
        if source.weight is not None:
            stage = with_weight(stage, KeptDraws(source.weight, kept))
        stage = trained_on_kept(stage, classifier, kept)
    return with_held_out(stage, config, settings)


@dataclasses.dataclass(frozen=True)
class BalanceObjects:
    """Balances all classes but the background, which nearly every image shows."""

    balance: ClassBalance
    background: int

    def __call__(self, tags: np.ndarray) -> np.ndarray:
        return self.balance(np.delete(tags, self.background, axis=1))


def _infer_cams(
    name: str, config: Config, classifier: nn.Module, info: DatasetInfo, kept: Kept | None, **changes: Any
) -> Infer:
    stage, cams = config.classifier, config.cams
    source, predict = inference_source(config, stage, **changes), ClassMaps(classifier)
    if kept is not None:
        source, predict = source_of_kept(source, kept), KeptMaps(predict, kept)
    return Infer(
        name=name,
        nets={CLASSIFIER: common.frozen(classifier, net_inputs(stage.size), "classifier", CLASSIFIER)},
        predict=predict,
        source=source,
        views=cams.views,
        combine=CompactMaps(stage.size, info.background, cams.most),
        status=STATUS,
    )


def _infer_labels(name: str, config: Config, info: DatasetInfo, cams: str, confident: bool = False) -> Infer:
    """Labels of all images of the stage `cams`, or sure labels of those of whose tags the classifier is sure."""
    confidence, outputs = Artifact(stage=cams, name="confidence"), ("refined",)
    ids = confidence
    if confident:
        ids = Chosen(artifact=confidence, at_least=config.cams.confidence, flag="cams.confidence")
        outputs = ("sure", "refined") if config.walk.start == "labels" else ("sure",)
    # As stored, because the CRF reads colours.
    source = _with_maps(config, cams, ids=ids, transform=as_stored)
    return Infer(name=name, nets={}, predict=RefinedLabels(config.cams, info.background, outputs), source=source)


def _with_maps(config: Config, cams: str, fields: tuple[Artifact, ...] = (), **changes: Any) -> Source:
    """The images of a stage's maps at IRNet's size, with the maps and `fields`. `changes` are fields of the Source."""
    split = config.eval_split if cams == "eval_cams" else config.train_split
    maps = tuple(Artifact(stage=cams, name=name) for name in ("maps", "classes"))
    return inference_source(config, config.irnet, split=split, fields=maps + fields, **changes)


def _weights_of(backbone: ResNetConfig) -> ResNetConfig:
    """The ResNet whose weights fit, whatever of it is trained."""
    return dataclasses.replace(backbone, frozen=0, frozen_statistics=False)


class _IRNetStages:
    """The stages of IRNet."""

    def __init__(self, config: Config, classifier: AveragedFeatures, background: int):
        stage = config.irnet
        self.config, self.background = config, background
        trunk = irnet.encoder(stage.backbone, compute_dtype(config))
        # The classifier at the strides of IRNet, so that it can start from the earlier stage; its head is not used.
        self.encoder = classifier.clone(backbone=trunk)
        if stage.init_from is not None:
            self.encoder = TagClassifier(backbone=trunk, classes=classifier.classes)
        self.module = IRNet(stage.backbone.width, compute_dtype(config))
        self.frozen = self._frozen()
        image, key = image_input(stage.size), jax.random.key(0)
        layers, _ = jax.eval_shape(lambda x: trunk.init_with_output(key, x, train=False), image)
        self.inputs = tuple(layers[name] for name in TAPS)

    def _frozen(self) -> Net:
        """The frozen ResNet; raises InputError if there are no weights for it."""
        stage = self.config.irnet
        if stage.init_from is not None:
            return dataclasses.replace(common.trained(stage, self.encoder, net_inputs(stage.size)), optim=None)
        ours, net = stage.backbone, self.config.classifier.net
        theirs = getattr(net, "backbone", None)
        if not isinstance(theirs, ResNetConfig) or _weights_of(theirs) != _weights_of(ours):
            raise InputError(
                f"irnet.init_from is none, and classifier.net ({net.kind}) has no ResNet of depth {ours.depth} and "
                f"width {ours.width}, of {ours.geometry} geometry and {ours.normalisation} normalisation, to start "
                f"from; name weights of such a ResNet, or set irnet.backbone to the classifier's ResNet"
            )
        return common.frozen(self.encoder, net_inputs(stage.size), "classifier", CLASSIFIER)

    def train(self) -> Train:
        """Stage `irnet`."""
        stage, label = self.config.irnet, Artifact(stage="affinity_labels", name="sure")
        loss = RelationLoss(self.module, self.encoder, stage.radius, self.background)
        return common.train(
            "irnet",
            self.config,
            stage,
            nets={ENCODER: self.frozen, IRNET: Net(module=self.module, inputs=self.inputs, optim=stage.optim)},
            turns=(Turn(net=IRNET, loss=loss),),
            sources={"labelled": training_source(self.config, stage, ids=label, labels=(label,))},
        )

    def _trained(self) -> dict[str, Net]:
        encoder = self.frozen
        if not isinstance(encoder.init_from, Artifact):
            encoder = dataclasses.replace(encoder, init_from=Artifact(stage="irnet", name=ENCODER))
        return {ENCODER: encoder, IRNET: common.frozen(self.module, self.inputs, "irnet", IRNET)}

    def infer_displacement(self) -> Infer:
        """Stage `displacement_mean`."""
        source = inference_source(self.config, self.config.irnet, ids=Artifact(stage="affinity_labels", name="sure"))
        predict = MeanDisplacement(self.module, self.encoder)
        return Infer(name="displacement_mean", nets=self._trained(), predict=predict, source=source, write=Mean())

    def infer_walk(self, name: str, cams: str, labels: str) -> Infer:
        """A stage that spreads the maps of the stage `cams`, or the labels of the stage `labels`, up to boundaries.

        The images are those of the stage `labels`.
        """
        refined = Artifact(stage=labels, name="refined")
        fields = (refined,) if self.config.walk.start == "labels" else ()
        ids = Artifact(stage=labels, name="sure") if labels == "affinity_labels" else refined
        return Infer(
            name=name,
            nets=self._trained(),
            predict=Boundaries(self.module, self.encoder),
            source=_with_maps(self.config, cams, fields, ids=ids),
            views=Views(flip=True),
            combine=WalkedLabels(self.config.walk, self.config.irnet.size, self.background),
        )


def _measured_labels(name: str, config: Config, labels: Artifact) -> Eval:
    """The labels that a stage made for the evaluation split."""
    source = evaluation_source(config, config.irnet, ids=labels)
    return Eval(name=name, predict=None, source=source, inferred=labels)


def _displacement_table() -> Table:
    """Table `displacement`: the mean over the training images, in quarters of the image's pixels."""

    def make(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {"columns": ["rows", "columns"], "rows": [[float(x) for x in values["displacement"]]]}

    return Table(reads={"displacement": Artifact(stage="displacement_mean", name="displacement")}, make=make)
