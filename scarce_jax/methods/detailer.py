"""The detailer: a PSPNet that reads the image and a coarse mask, and learns to refine the mask.

Katsman, Tripathi, Veit and Belongie, "Semantic Segmentation with Scarce Data". A few images have fine masks. All
images have coarse masks, also at test time.

Stages (* with `compare`):

- `detailer` trains the detailer on the images with fine masks.
- `classifier`* trains a plain PSPNet on the same draws.
- `detail` infers detailed masks for all images with coarse masks.
- `student_detailed`* and `student_coarse`* train plain PSPNets on the detailed and on the coarse masks of the same
  images (section 5, "Distillation").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.frequencies import with_frequencies
from scarce_jax.methods.inputs import inference_source
from scarce_jax.methods.segmentation import SegmentationLogits, measured, network, train_segmenter
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.segmenters import DetailerNet
from scarce_jax.ranges import Count
from scarce_jax.recipe import Artifact, Infer, NetState, Recipe, Train

FIELDS = ("image", "coarse")
"""Inputs of the detailer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetailerStage(SegmenterStage):
    """Settings of the detailer's training.

    Attributes:
      net: the net, which reads the image and the coarse mask.
    """

    net: DetailerNet = DetailerConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentStage(SegmenterStage):
    """Settings of the students' training, on images without fine masks.

    Attributes:
      images: number of training images (100 in the paper).
    """

    images: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Experiment):
    """Config of the method `detailer`.

    Attributes:
      detailer: training of the detailer.
      classifier: training of the plain PSPNet, with `compare`.
      student: training of the two students, with `compare`; None omits them.
    """

    detailer: DetailerStage
    classifier: SegmenterStage
    student: StudentStage | None = None

    def remarks(self) -> Iterator[str]:
        yield from super().remarks()
        if self.compare and (names := common.unequal(self.detailer, self.classifier)):
            yield (
                f"detailer is compared with classifier, whose settings are others: {', '.join(names)}; set them alike, "
                f"or coarse masks are not all that the results differ by"
            )


def recipe(config: Config, info: DatasetInfo) -> Recipe:
    """Results `detailer`, `coarse` (the coarse mask as a prediction), `detailer_composite` and those of `compare`.

    With `compare` there are also `classifier`, `classifier_composite`, `student_detailed` and `student_coarse`.
    """
    classes = len(info.classes)
    detailer = network(config, config.detailer, classes)
    detailed = measured("detailer", config, config.detailer, detailer, fields=FIELDS)
    detail = Infer(
        name="detail",
        nets=detailed.nets,
        predict=DetailedMask(SegmentationLogits(detailer, FIELDS)),
        source=inference_source(config, config.detailer, ids="coarse", fields=("coarse",)),
    )
    stages: list[Train | Infer] = [
        train_segmenter("detailer", config, config.detailer, detailer, fields=FIELDS),
        detail,
    ]
    results = {
        "detailer": detailed,
        "coarse": dataclasses.replace(detailed, name="coarse", nets={}, predict=None, composite=True),
        "detailer_composite": dataclasses.replace(detailed, name="detailer_composite", composite=True),
    }
    if config.compare:
        # The comparison is on the same images: `having` leaves out those without a coarse mask.
        plain, having = network(config, config.classifier, classes), ("coarse",)
        train = train_segmenter("classifier", config, config.classifier, plain, having=having, keys_as="detailer")
        stages.insert(1, train)
        results["classifier"] = measured("classifier", config, config.classifier, plain, having=having)
        results["classifier_composite"] = measured(
            "classifier_composite", config, config.classifier, plain, trained_in="classifier", composite=True
        )
        if config.student is not None:
            student = network(config, config.student, classes)
            masks = {"student_detailed": Artifact(stage="detail", name="mask"), "student_coarse": "coarse"}
            for name, label in masks.items():
                images = {"ids": "unlabelled", "take": config.student.images, "labels": (label,)}
                stages.append(train_segmenter(name, config, config.student, student, **images, keys_as="student"))
                results[name] = measured(name, config, config.student, student, having=having)
    return Recipe(stages=with_frequencies(config, stages, config.detailer, classes), results=results)


@dataclasses.dataclass(frozen=True)
class DetailedMask:
    """The detailed "mask" and its "confidence", the largest class probability times 255: both uint8 [B, H, W]."""

    logits: SegmentationLogits

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities = jax.nn.softmax(self.logits(nets, batch, consts))  # [B, H, W, K]
        confidence = jnp.round(probabilities.max(-1) * 255)
        return {
            "mask": probabilities.argmax(-1).astype(jnp.uint8),
            "confidence": confidence.astype(jnp.uint8),
        }
