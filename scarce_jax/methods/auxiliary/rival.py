"""Which pixels the discriminator of Hung et al. trusts, beside those of the auxiliary net and of softmax.

"Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review), section 1, claims that the
discriminator trusts large objects above all.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.adversarial import DISCRIMINATOR, AdversarialStage
from scarce_jax.methods.auxiliary.selection import (
    class_ratios,
    confusions,
    confusions_by_logit,
    mean_iou,
    mean_ratio,
    most_confident,
)
from scarce_jax.methods.common import SEGMENTER
from scarce_jax.methods.inputs import evaluation_source
from scarce_jax.ops.logits import full_size
from scarce_jax.recipe import Artifact, Infer, Mean, NetState, Table, Train

STAGE = "discriminator_selection"


@dataclasses.dataclass(frozen=True)
class DiscriminatorCounts:
    """Confusion matrices of the pixels that a discriminator takes for true, as shares of an image's pixels.

    `trusted` [B, K, K] is of those at the threshold, and `discriminator` [B, BINS, K, K] of all by the output's logit.
    """

    segmenter: nn.Module
    discriminator: nn.Module
    threshold: float
    classes: int

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        logits, _ = self.segmenter.apply(nets[SEGMENTER].variables, batch["image"], train=False)
        logits = full_size(logits)
        output = self.discriminator.apply(nets[DISCRIMINATOR].variables, jax.nn.softmax(logits), train=False)
        output, predictions, labels = output.astype(jnp.float32), logits.argmax(-1), batch["label"]
        trusted = jax.nn.sigmoid(output) >= self.threshold
        return {
            "trusted": confusions(predictions, labels, self.classes, trusted),
            "discriminator": confusions_by_logit(predictions, labels, self.classes, output),
        }


def infer_discriminator(config: common.Experiment, stage: AdversarialStage, trained: Train) -> Infer:
    """Stage `discriminator_selection`: means of `DiscriminatorCounts` over the evaluation split.

    Args:
      stage: settings of the method of Hung et al.
      trained: the stage that trained its two nets.
    """
    segmenter, discriminator = (trained.nets[role] for role in (SEGMENTER, DISCRIMINATOR))
    return Infer(
        name=STAGE,
        nets={
            role: common.frozen(net.module, net.inputs, trained.name, role)
            for role, net in ((SEGMENTER, segmenter), (DISCRIMINATOR, discriminator))
        },
        predict=DiscriminatorCounts(
            segmenter.module, discriminator.module, stage.threshold, discriminator.module.classes
        ),
        source=evaluation_source(config, stage),
        write=Mean(),
    )


def confidence_table(
    threshold: float, thresholds: Sequence[float], discriminator_threshold: float, info: DatasetInfo
) -> dict[str, Table]:
    """Table `selection_confidences`; see `compare_confidences`.

    Args:
      threshold: of the auxiliary confidence, by which unlabelled images are labelled.
      thresholds: those of the selection tables; the nearest one stands for `threshold`.
      discriminator_threshold: the least output at which a predicted class serves as a label.
    """
    nearest = min(range(len(thresholds)), key=lambda k: abs(thresholds[k] - threshold))
    reads = {name: Artifact(stage="selection", name=name) for name in ("kept", "softmax")}
    reads |= {name: Artifact(stage=STAGE, name=name) for name in ("trusted", "discriminator")}
    settings = {
        "row": nearest,
        "threshold": thresholds[nearest],
        "discriminator_threshold": discriminator_threshold,
        "classes": info.classes,
    }
    return {"selection_confidences": Table(reads=reads, make=functools.partial(compare_confidences, **settings))}


def compare_confidences(
    values: Mapping[str, np.ndarray],
    *,
    row: int,
    threshold: float,
    discriminator_threshold: float,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Table of class semi ratios, one row per class, for as many pixels as the auxiliary net trusts at `threshold`.

    "pixels" is the share of a class in the labelled pixels. "auxiliary" and "softmax" judge the net of `segmenter`,
    "discriminator" that of `adversarial`; the last column is for the discriminator's own threshold, at which it trusts
    another number of pixels. "class semi ratio" has the means over the classes, "mIoU" that of the trusted pixels, and
    "selected" their share. Of equally many pixels, those that favour large objects have a lower mean ratio.

    Args:
      values: the means of `selection_counts` and of `DiscriminatorCounts`.
      row: number of `threshold` among those of `selection_counts`.
    """
    softmax, discriminator = (np.asarray(values[name], np.float64) for name in ("softmax", "discriminator"))
    segmenter, rival = softmax.sum(0), discriminator.sum(0)
    confident = np.asarray(values["kept"], np.float64)[row]
    share = confident.sum() / segmenter.sum()
    # Column -> the pixels that are trusted, and those they are chosen from.
    parts = {
        "auxiliary": (confident, segmenter),
        "softmax": (most_confident(softmax, share), segmenter),
        "discriminator": (most_confident(discriminator, share), rival),
        f"discriminator at {discriminator_threshold:g}": (np.asarray(values["trusted"], np.float64), rival),
    }
    ratios = [class_ratios(trusted, whole) for trusted, whole in parts.values()]
    pixels = (segmenter.sum(1) / segmenter.sum()).tolist()
    return {
        "columns": ["class", "pixels", *parts],
        "rows": [list(cells) for cells in zip(classes, pixels, *ratios, strict=True)],
        "threshold": threshold,
        "class semi ratio": {name: mean_ratio(*part) for name, part in parts.items()},
        "mIoU": {name: mean_iou(trusted, classes) for name, (trusted, _) in parts.items()},
        "selected": {name: float(trusted.sum() / whole.sum()) for name, (trusted, whole) in parts.items()},
    }
