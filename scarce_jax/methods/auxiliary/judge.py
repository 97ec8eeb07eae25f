"""How the auxiliary method trains the net that judges each pixel, and what it judges.

"Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review), sections 3.1 to 3.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.losses import auxiliary_loss, correctness_balance, correctness_counts, inverse_log_weights
from scarce_jax.methods import common
from scarce_jax.methods.auxiliary.selection import selection_histograms
from scarce_jax.methods.common import FREQUENCIES, SEGMENTER, SegmenterStage, TrainStage
from scarce_jax.methods.segmentation import total_weight
from scarce_jax.models.auxiliary import AuxiliaryNet
from scarce_jax.ops.augment import Augment
from scarce_jax.recipe import Artifact, Infer, Mean, Net, NetState, Out, Train, Turn

AUXILIARY = "auxiliary"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuxiliaryStage(TrainStage):
    """Training of the auxiliary net (section 3.3); the segmenter is frozen.

    Attributes:
      size, augment: as in the segmenter's stage.
      width: channels of its first convolution (32 in table 1); every layer scales with it.
      weighting: c of W = 1 / ln(c + p_class) in equation 1; None is W = 1.
      scope: over what gamma counts wrong and right pixels (see `losses.auxiliary_loss`); "none" is gamma = 1. With
        both the confidence is relative to what is usual for a class; with neither it is the probability of being right.
    """

    size: tuple[int, int]
    augment: Augment
    width: int = 32
    weighting: float | None = 1.04
    scope: Literal["labelled_set", "batch", "none"] = "labelled_set"


@dataclasses.dataclass(frozen=True)
class JudgedSegmenter:
    """The segmenter, and the net that judges its probability maps, as the stages of those names leave them.

    Attributes:
      stage: of the segmenter; the size of its images is that of everything that is inferred here.
      maps: (height, width) of the probability maps that the judge is trained on.
    """

    segmenter: nn.Module
    judge: AuxiliaryNet
    stage: SegmenterStage
    maps: tuple[int, int]

    def nets(self) -> dict[str, Net]:
        """Both, frozen."""
        maps = jax.ShapeDtypeStruct((1, *self.maps, self.judge.classes), jnp.float32)
        images = common.image_input(self.stage.size)
        return {
            SEGMENTER: common.frozen(self.segmenter, (images,), SEGMENTER, SEGMENTER),
            AUXILIARY: common.frozen(self.judge, (maps,), AUXILIARY, AUXILIARY),
        }

    def probabilities(self, nets: Mapping[str, NetState], images: jax.Array) -> jax.Array:
        """The segmenter's class probabilities, float32 [B, H, W, K]."""
        logits, _ = self.segmenter.apply(nets[SEGMENTER].variables, images, train=False)
        return jax.nn.softmax(logits.astype(jnp.float32))

    def confidence(self, nets: Mapping[str, NetState], images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(probabilities [B, H, W, K], logits of the confidence in them [B, H, W]), both float32."""
        probabilities = self.probabilities(nets, images)
        logits = self.judge.apply(nets[AUXILIARY].variables, probabilities, train=False)
        return probabilities, logits.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class CorrectnessShares:
    """Shares "right" and "wrong" [B, K] of an image's pixels, by true class."""

    judged: JudgedSegmenter

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        predictions = self.judged.probabilities(nets, batch["image"]).argmax(-1).astype(jnp.uint8)  # [B, H, W]
        right, wrong = correctness_counts(predictions, batch["label"], self.judged.judge.classes)
        pixels = predictions.shape[1] * predictions.shape[2]
        return {"right": right / pixels, "wrong": wrong / pixels}


def correctness_statistics(config: common.Experiment, judged: JudgedSegmenter) -> Infer:
    """Shares of right and wrong pixels of each true class on the labelled images, for gamma (equation 1)."""
    return Infer(
        name="statistics",
        nets={SEGMENTER: judged.nets()[SEGMENTER]},
        predict=CorrectnessShares(judged),
        source=common.inference_source(config, judged.stage, ids="fine", labels=("fine",)),
        write=Mean(),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfidenceLoss:
    """Equation 1: whether the segmenter is right at each pixel, weighed by class; see `AuxiliaryStage`."""

    judged: JudgedSegmenter
    weighting: float | None
    scope: Literal["labelled_set", "batch", "none"]

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch["labelled"]
        probabilities = self.judged.probabilities(nets, rows["image"])
        variables = {"params": params, "batch_stats": nets[AUXILIARY].stats}
        logits, updated = self.judged.judge.apply(variables, probabilities, train=True, mutable=["batch_stats"])
        predictions = probabilities.argmax(-1).astype(rows["label"].dtype)
        alike = jnp.ones_like(shared["p_class"])
        weights = alike if self.weighting is None else inverse_log_weights(shared["p_class"], self.weighting)
        loss = auxiliary_loss(
            logits,
            predictions,
            rows["label"],
            class_weights=weights,
            gamma=alike if self.scope == "none" else correctness_balance(shared["right"], shared["wrong"]),
            scope="batch" if self.scope == "batch" else "labelled_set",
        )
        metrics = {"confidence": jax.nn.sigmoid(logits).mean()}
        return loss, Out(
            metrics=metrics, stats={AUXILIARY: updated["batch_stats"]}, weight=total_weight(rows["label"], None)
        )


def train_auxiliary(config: common.Experiment, stage: AuxiliaryStage, judged: JudgedSegmenter) -> Train:
    """A stage that trains the judge on the frozen segmenter's maps of the labelled images."""
    common.check_unmeasured(stage, AUXILIARY, "the auxiliary net predicts no class")
    segmenter, auxiliary = (judged.nets()[role] for role in (SEGMENTER, AUXILIARY))
    loss = ConfidenceLoss(judged=judged, weighting=stage.weighting, scope=stage.scope)
    return Train(
        name=AUXILIARY,
        nets={SEGMENTER: segmenter, AUXILIARY: common.trained(stage, judged.judge, auxiliary.inputs)},
        turns=(Turn(net=AUXILIARY, loss=loss),),
        sources={"labelled": common.training_source(config, batch=stage.batch, size=stage.size, augment=stage.augment)},
        steps=common.resolve_length(stage, AUXILIARY),
        accumulate=stage.accumulate,
        consts={
            "p_class": Artifact(stage=FREQUENCIES, name="p_class"),
            "right": Artifact(stage="statistics", name="right"),
            "wrong": Artifact(stage="statistics", name="wrong"),
        },
    )


@dataclasses.dataclass(frozen=True)
class SelectionHistograms:
    """`selection_histograms` of a batch."""

    judged: JudgedSegmenter
    thresholds: tuple[float, ...]

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities, confidence = self.judged.confidence(nets, batch["image"])
        return selection_histograms(probabilities, confidence, batch["label"], self.thresholds)


def infer_selection(config: common.Experiment, judged: JudgedSegmenter, thresholds: tuple[float, ...]) -> Infer:
    """Stage `selection`, on the evaluation split: the histograms from which the selection tables are made."""
    return Infer(
        name="selection",
        nets=judged.nets(),
        predict=SelectionHistograms(judged, thresholds),
        source=common.evaluation_source(config, judged.stage),
        write=Mean(),
    )


@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """The segmenter's class "label" uint8 [B, H, W], and the judge's "confidence" in it, 0..255.

    The confidence is rounded down, so that a threshold of 1 selects nothing that is not certain.
    """

    judged: JudgedSegmenter

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities, confidence = self.judged.confidence(nets, batch["image"])
        return {
            "label": probabilities.argmax(-1).astype(jnp.uint8),
            "confidence": jnp.floor(jax.nn.sigmoid(confidence) * 255).astype(jnp.uint8),
        }


def infer_pseudo_labels(config: common.Experiment, judged: JudgedSegmenter) -> Infer:
    """Class and confidence of the unlabelled images, not augmented; no threshold yet."""
    return Infer(
        name="pseudo_labels",
        nets=judged.nets(),
        predict=PseudoLabels(judged),
        source=common.inference_source(config, judged.stage, ids="unlabelled"),
    )
