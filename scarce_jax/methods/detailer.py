"""The detailer: a PSPNet that takes the image and a coarse mask, and learns to refine the mask.

Katsman, Tripathi, Veit, Belongie: "Semantic Segmentation with Scarce Data". A few images have fine masks; every
image, also at test time, has a coarse one.

Stages (* with `compare`): `detailer` trains on the fine images; `classifier`* trains the plain PSPNet on the same
draws; `detail` infers detailed masks for every image that has a coarse one; `student_detailed`* and
`student_coarse`* train plain PSPNets on the detailed and on the coarse masks of the same images ("Distillation",
section 5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage
from scarce_jax.methods.networks import compute_dtype, network
from scarce_jax.methods.supervised import measured, train_segmenter
from scarce_jax.models.detailer import Detailer
from scarce_jax.recipe import Artifact, Eval, Infer, Net, NetState, Recipe, Source, Train, Turn

FIELDS = ("image", "coarse")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetailerStage(SegmenterStage):
    """Training of the detailer.

    Attributes:
      inject: where the embedding of the coarse mask joins the visual features (paper, figure 2).
      embedding: filters of the 1x1 convolution that embeds the coarse mask (800 in the paper).
    """

    inject: Literal["before_pool", "after_pool", "after_final"] = "after_pool"
    embedding: int = 800


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentStage(SegmenterStage):
    """Training of a student on masks of images that have no fine mask.

    Attributes:
      images: how many of them (100 in the paper).
    """

    images: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Stages `detailer`, `classifier`* and the two students*; `student=None` leaves the students out."""

    detailer: DetailerStage
    classifier: SegmenterStage
    student: StudentStage | None = None


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Results: `detailer`, `coarse` (the coarse mask as prediction), `detailer_composite`, one per starred stage."""
    classes = len(info.classes)
    stage = config.detailer
    module = Detailer(
        classes=classes,
        depth=stage.depth,
        width=stage.width,
        dropout=stage.dropout,
        inject=stage.inject,
        embedding=stage.embedding,
        dtype=compute_dtype(config),
    )
    # What the detailer is compared with is trained and measured on the same images: those that have a coarse mask too.
    plain = network(config, config.classifier, classes)
    stages: list[Train | Infer] = [_train_detailer(config, module)]
    if config.compare:
        stages.append(
            train_segmenter(
                "classifier",
                config,
                config.classifier,
                plain,
                ids="fine",
                labels=("fine",),
                having=("coarse",),
                keys_as="detailer",
            )
        )
    stages.append(_detail(config, module))
    detailed = _result(config, "detailer", module)
    results = {
        "detailer": detailed,
        "coarse": dataclasses.replace(detailed, name="coarse", nets={}, predict=None, composite=True),
        "detailer_composite": dataclasses.replace(detailed, name="detailer_composite", composite=True),
    }
    if config.compare:
        results["classifier"] = measured("classifier", config, config.classifier, plain, having=("coarse",))
        results["classifier_composite"] = measured(
            "classifier_composite", config, config.classifier, plain, trained_in="classifier", composite=True
        )
        if config.student is not None:
            student = network(config, config.student, classes)
            masks = {"student_detailed": Artifact(stage="detail", name="mask"), "student_coarse": "coarse"}
            for name, label in masks.items():
                stages.append(
                    train_segmenter(
                        name,
                        config,
                        config.student,
                        student,
                        ids="unlabelled",
                        take=config.student.images,
                        labels=(label,),
                        keys_as="student",
                    )
                )
                results[name] = measured(name, config, config.student, student, having=("coarse",))
    return Recipe(stages=tuple(stages), results=results)


def _inputs(stage: DetailerStage) -> tuple[jax.ShapeDtypeStruct, ...]:
    return common.image_input(stage.size), common.mask_input(stage.size)


def _train_detailer(config: Config, module: Detailer) -> Train:
    stage = config.detailer
    source = Source(
        dataset=config.dataset,
        split=config.train_split,
        ids="fine",
        fields=("coarse",),
        labels=("fine",),
        batch=stage.batch,
        size=stage.size,
        transform=common.augmented(stage.augment),
    )
    loss = common.segmentation_loss(module, FIELDS, stage.aux_weight, "labelled")
    predict = common.segmentation_predict(module, FIELDS)
    return Train(
        name="detailer",
        nets={SEGMENTER: common.trained(stage, module, _inputs(stage))},
        turns=(Turn(net=SEGMENTER, loss=loss),),
        sources={"labelled": source},
        steps=common.length(stage, "detailer"),
        settings=common.settings(stage),
        evals=common.during_training(config, stage, predict, ("coarse",)),
    )


def _trained(config: Config, module: Detailer) -> dict[str, Net]:
    init = Artifact(stage="detailer", name=SEGMENTER)
    return {SEGMENTER: Net(module=module, inputs=_inputs(config.detailer), init_from=init)}


def _detail(config: Config, module: Detailer) -> Infer:
    stage = config.detailer
    scores = common.segmentation_predict(module, FIELDS)

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities = jax.nn.softmax(scores(nets, batch, consts))
        confidence = jnp.round(probabilities.max(-1) * 255)
        return {
            "mask": probabilities.argmax(-1).astype(jnp.uint8),
            "confidence": confidence.astype(jnp.uint8),
        }

    source = Source(
        dataset=config.dataset,
        split=config.train_split,
        ids="coarse",
        fields=("coarse",),
        batch=stage.eval_batch,
        size=stage.size,
        transform=common.unaugmented,
    )
    return Infer(
        name="detail",
        nets=_trained(config, module),
        predict=predict,
        source=source,
        settings={"size": stage.size},
    )


def _result(config: Config, name: str, module: Detailer) -> Eval:
    return Eval(
        name=name,
        nets=_trained(config, module),
        predict=common.segmentation_predict(module, FIELDS),
        source=common.evaluation_source(config, config.detailer, ("coarse",)),
    )
