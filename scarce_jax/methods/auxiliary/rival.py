"""Which pixels the discriminator of Hung et al. trusts, beside those of the auxiliary net and of softmax.

"Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review), section 1, claims that the
discriminator trusts large objects above all.
"""

from __future__ import annotations

import dataclasses
import functools
import math
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
    BINS,
    HIGH,
    LOW,
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

    `kept` [B, K, K] is of those at the threshold, and `discriminator` [B, BINS, K, K] of all by the output's logit.
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
            "kept": confusions(predictions, labels, self.classes, trusted),
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


def confidence_table(threshold: float, discriminator_threshold: float, info: DatasetInfo) -> dict[str, Table]:
    """Table `selection_confidences`; see `compare_confidences`."""
    reads = {name: Artifact(stage="selection", name=name) for name in ("auxiliary", "softmax")}
    reads |= {name: Artifact(stage=STAGE, name=name) for name in ("kept", "discriminator")}
    thresholds = {"threshold": threshold, "discriminator_threshold": discriminator_threshold}
    make = functools.partial(compare_confidences, **thresholds, classes=info.classes)
    return {"selection_confidences": Table(reads=reads, make=make)}


def compare_confidences(
    values: Mapping[str, np.ndarray], threshold: float, discriminator_threshold: float, classes: Sequence[str]
) -> dict[str, Any]:
    """Table of class semi ratios, one row per class, for as many pixels as the auxiliary net trusts at the threshold.

    "pixels" is the share of a class in the labelled pixels. "auxiliary" and "softmax" judge the net of `segmenter`,
    "discriminator" that of `adversarial`; the last column is for the discriminator's own threshold, at which it trusts
    another number of pixels. "class semi ratio" has the means over the classes, "mIoU" that of the trusted pixels, and
    "selected" their share. Of equally many pixels, those that favour large objects have a lower mean ratio.
    """
    confidences = ("auxiliary", "softmax", "discriminator")
    totals = {name: np.asarray(values[name], np.float64).sum(0) for name in confidences}
    selected = _share_from(values["auxiliary"], threshold)
    trusted = {name: most_confident(values[name], selected) for name in confidences}
    own = f"discriminator at {discriminator_threshold:g}"
    trusted[own], totals[own] = np.asarray(values["kept"], np.float64), totals["discriminator"]
    shares = totals["auxiliary"].sum(1) / totals["auxiliary"].sum()
    ratios = [class_ratios(confusion, totals[name]) for name, confusion in trusted.items()]
    return {
        "columns": ["class", "pixels", *trusted],
        "rows": [list(row) for row in zip(classes, shares.tolist(), *ratios, strict=True)],
        "class semi ratio": {name: mean_ratio(kept, totals[name]) for name, kept in trusted.items()},
        "mIoU": {name: mean_iou(kept, classes) for name, kept in trusted.items()},
        "selected": {name: float(kept.sum() / totals[name].sum()) for name, kept in trusted.items()},
    }


def _share_from(histogram: np.ndarray, threshold: float) -> float:
    """Share of the pixels of `confusions_by_logit` from the first bin on that lies above a threshold, 0 to 1."""
    logit = -math.inf if threshold <= 0 else math.inf if threshold >= 1 else math.log(threshold / (1 - threshold))
    edges = np.linspace(LOW, HIGH, BINS, endpoint=False)
    by_bin = np.sum(histogram, (1, 2), np.float64)
    return float(by_bin[edges >= logit].sum() / by_bin.sum())
