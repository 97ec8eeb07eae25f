"""The classifiers of the three-step method: their settings, and the stages that train them on image tags."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from scarce_jax.data.sampling import ClassBalance
from scarce_jax.methods import common
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.models.cam_vgg import CamVGGConfig
from scarce_jax.models.segmenters import TagNet
from scarce_jax.ops.augment import Augment
from scarce_jax.ranges import BelowOne
from scarce_jax.recipe import Part, Train

HELD_OUT = "held_out"
"""Name of the measurements on the held-out part."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierStage(SegmenterStage):
    """Settings of the training of a classifier on image tags.

    Attributes:
      net: the classifier, or a segmentation net on whose trunk it is built.
      balance: leaves out images of common classes and repeats those of rare ones. The paper only leaves out (section
        3.1). None draws all images equally often.
      held_out: share of the training images with tags that do not train the classifier: they take the place of the
        evaluation split in the measurements during training and in `keep_best`, which it needs. So the evaluation split
        takes no part in the choice of the net. 0 holds out none. The images are drawn by `budget.seed` before `balance`
        applies to the others; the paper holds out 0.15 of the balanced images, and keeps the best "mean_f1" (sections
        3.1 and 4.1).
    """

    net: TagNet = CamVGGConfig()
    balance: ClassBalance | None = None
    held_out: BelowOne = 0.0

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.balance is not None and self.rare_class_sampling is not None:
            yield "rare_class_sampling", "None beside balance, because both choose how often images are drawn"
        if self.held_out and self.keep_best is None:
            yield (
                "held_out",
                "0 without keep_best, because the held-out images would decide nothing; set keep_best, to mean_f1 for "
                "example, and eval_every",
            )


def strong(crop: tuple[int, int]) -> Augment:
    """The strong augmentation of the classifier, IRNet and the segmenter (sections 3.1 and 3.2).

    The paper lists its parts: flip, shift, scale, rotate, Gaussian noise, brightness and contrast, median blur, shift
    of RGB. The ranges of scale and angle are those of the authors' code, the others the defaults of its library
    (albumentations). The code applies scale and rotation together, with the probability that only the rotation has
    here; it draws one of contrast, blur and others at a time, and adds an elastic deformation that the paper lacks.

    Args:
      crop: (height, width) of whole images.
    """
    return Augment(
        crop=crop,
        scale=(0.8, 1.2),
        rotate=30.0,
        rotate_probability=0.4,
        shift=0.0625,
        brightness=0.2,
        contrast=0.2,
        noise=7.0,
        blur=5,
        rgb_shift=20.0,
    )


def with_weight(stage: Train, weight: Callable[[np.ndarray], np.ndarray]) -> Train:
    """The stage with other draws per epoch, as in `Source.weight`."""
    sources = {name: dataclasses.replace(source, weight=weight) for name, source in stage.sources.items()}
    return dataclasses.replace(stage, sources=sources)


def with_held_out(stage: Train, config: common.Experiment, settings: ClassifierStage) -> Train:
    """The stage of a classifier that trains without the held-out part, and measures on it instead."""
    if not settings.held_out:
        return stage
    part = Part(share=settings.held_out, seed=config.budget.seed, held_out=False)
    chosen = {"split": config.train_split, "ids": "tags", "part": dataclasses.replace(part, held_out=True)}
    evals = (
        dataclasses.replace(evaluation, name=HELD_OUT, source=dataclasses.replace(evaluation.source, **chosen))
        for evaluation in stage.evals
    )
    sources = {name: dataclasses.replace(source, part=part) for name, source in stage.sources.items()}
    return dataclasses.replace(stage, sources=sources, evals=tuple(evals))
