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

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, with_frequencies
from scarce_jax.methods.segmentation import SegmentationLogits, measured, net_inputs, network, train_segmenter
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.segmenters import DetailerNet
from scarce_jax.recipe import Artifact, Infer, NetState, Recipe, Train

FIELDS = ("image", "coarse")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetailerStage(SegmenterStage):
    """Training of the detailer.

    Attributes:
      net: the net, which takes the image and the coarse mask.
    """

    net: DetailerNet = DetailerConfig()


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
    detailer = network(config, config.detailer, classes)
    # The detailer's rivals are trained and measured on the same images: those that have a coarse mask too.
    plain = network(config, config.classifier, classes)
    stages: list[Train | Infer] = [train_segmenter("detailer", config, config.detailer, detailer, fields=FIELDS)]
    if config.compare:
        stages.append(
            train_segmenter("classifier", config, config.classifier, plain, having=("coarse",), keys_as="detailer")
        )
    stages.append(_detail(config, detailer))
    detailed = measured("detailer", config, config.detailer, detailer, fields=FIELDS)
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
    return Recipe(stages=with_frequencies(config, stages, config.detailer, classes), results=results)


@dataclasses.dataclass(frozen=True)
class DetailedMask:
    """The detailed "mask" uint8 [B, H, W] and its "confidence", the largest class probability times 255."""

    logits: SegmentationLogits

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities = jax.nn.softmax(self.logits(nets, batch, consts))
        confidence = jnp.round(probabilities.max(-1) * 255)
        return {
            "mask": probabilities.argmax(-1).astype(jnp.uint8),
            "confidence": confidence.astype(jnp.uint8),
        }


def _detail(config: Config, module: nn.Module) -> Infer:
    """Stage `detail`: detailed masks of every image that has a coarse one."""
    stage = config.detailer
    return Infer(
        name="detail",
        nets={SEGMENTER: common.frozen(module, net_inputs(stage.size, FIELDS), "detailer", SEGMENTER)},
        predict=DetailedMask(SegmentationLogits(module, FIELDS)),
        source=common.inference_source(config, stage, ids="coarse", fields=("coarse",)),
    )
