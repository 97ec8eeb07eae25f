"""The auxiliary net: its training, and the inference stages that use it.

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
from scarce_jax.methods.auxiliary.selection import selection_counts
from scarce_jax.methods.common import SEGMENTER, ImageStage, SegmenterStage
from scarce_jax.methods.frequencies import FREQUENCIES
from scarce_jax.methods.inputs import evaluation_source, inference_source, net_inputs, training_source
from scarce_jax.methods.segmentation import measured_records, total_weight
from scarce_jax.models.auxiliary import AuxiliaryNet
from scarce_jax.ops.confidence import quantised
from scarce_jax.ops.logits import full_size
from scarce_jax.ranges import AboveOne, Width
from scarce_jax.recipe import Artifact, Eval, Infer, Mean, Net, NetState, Out, Read, Train, Turn

AUXILIARY = "auxiliary"
"""Role of the auxiliary net, and name of the stage that trains it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuxiliaryStage(ImageStage):
    """Settings of the auxiliary net's training (section 3.3). The segmenter is frozen.

    Attributes:
      width: channels of the first convolution (32 in table 1); all layers scale with it.
      weighting: c in the class weights W = 1 / ln(c + p_class) of equation 1; None sets W = 1.
      scope: pixels from which gamma of equation 1 is computed (see `losses.auxiliary_loss`); "none" sets gamma = 1.
        With W and gamma the confidence is relative to the usual accuracy of a class. With W = gamma = 1 it is the
        probability that the class is right.
    """

    width: Width = 32
    weighting: AboveOne | None = 1.04
    scope: Literal["labelled_set", "batch", "none"] = "labelled_set"


@dataclasses.dataclass(frozen=True)
class JudgedSegmenter:
    """The segmenter and the auxiliary net, as the stages `segmenter` and `auxiliary` left them.

    Attributes:
      stage: settings of the segmenter; inference uses its image size.
      maps: (height, width) of the probability maps on which the auxiliary net is trained.
    """

    segmenter: nn.Module
    judge: AuxiliaryNet
    stage: SegmenterStage
    maps: tuple[int, int]

    def nets(self) -> dict[str, Net]:
        """Both nets, frozen."""
        maps = jax.ShapeDtypeStruct((1, *self.maps, self.judge.classes), jnp.float32)
        return {
            SEGMENTER: common.frozen(self.segmenter, net_inputs(self.stage.size), SEGMENTER, SEGMENTER),
            AUXILIARY: common.frozen(self.judge, (maps,), AUXILIARY, AUXILIARY),
        }

    def probabilities(self, nets: Mapping[str, NetState], images: jax.Array, flip: bool = False) -> jax.Array:
        """Class probabilities of the segmenter, float32 [B, H, W, K].

        With `flip` they are means over the images and their mirror images.
        """
        logits, _ = self.segmenter.apply(nets[SEGMENTER].variables, images, train=False)
        probabilities = jax.nn.softmax(full_size(logits))
        if not flip:
            return probabilities
        mirrored = jnp.flip(self.probabilities(nets, jnp.flip(images, 2)), 2)
        return (probabilities + mirrored) / 2

    def confidence_logits(self, nets: Mapping[str, NetState], probabilities: jax.Array) -> jax.Array:
        """Logits of the confidence in these class probabilities [B, H, W, K], float32 [B, H, W]."""
        return self.judge.apply(nets[AUXILIARY].variables, probabilities, train=False).astype(jnp.float32)

    def confidence(self, nets: Mapping[str, NetState], images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The class probabilities [B, H, W, K] and the logits of their confidence [B, H, W], both float32."""
        probabilities = self.probabilities(nets, images)
        return probabilities, self.confidence_logits(nets, probabilities)


@dataclasses.dataclass(frozen=True)
class CorrectnessShares:
    """Shares of an image's pixels that are predicted correctly ("right") or not ("wrong"), by true class: [B, K]."""

    judged: JudgedSegmenter

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        predictions = self.judged.probabilities(nets, batch["image"]).argmax(-1).astype(jnp.uint8)  # [B, H, W]
        right, wrong = correctness_counts(predictions, batch["label"], self.judged.judge.classes)
        pixels = (batch["height"] * batch["width"])[:, None]
        return {"right": right / pixels, "wrong": wrong / pixels}


def correctness_statistics(config: common.Experiment, judged: JudgedSegmenter) -> Infer:
    """Stage `statistics`: means of `CorrectnessShares` over the labelled images, for gamma of equation 1."""
    return Infer(
        name="statistics",
        nets={SEGMENTER: judged.nets()[SEGMENTER]},
        predict=CorrectnessShares(judged),
        source=inference_source(config, judged.stage, ids="fine", labels=("fine",)),
        write=Mean(),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfidenceLoss:
    """Equation 1: cross-entropy of the confidence against the correctness of each pixel; see `AuxiliaryStage`."""

    judged: JudgedSegmenter
    weighting: float | None
    scope: Literal["labelled_set", "batch", "none"]

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch["labelled"]
        probabilities = self.judged.probabilities(nets, rows["image"])
        logits, stats = common.apply_in_training(self.judged.judge, params, nets[AUXILIARY], probabilities, key=key)
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
        return loss, Out(metrics=metrics, batch_stats={AUXILIARY: stats}, weight=total_weight(rows["label"]))


def train_auxiliary(config: common.Experiment, stage: AuxiliaryStage, judged: JudgedSegmenter) -> Train:
    """Stage `auxiliary`: trains the auxiliary net on the frozen segmenter's maps of the labelled images."""
    nets = judged.nets()
    loss = ConfidenceLoss(judged=judged, weighting=stage.weighting, scope=stage.scope)
    return common.train(
        AUXILIARY,
        config,
        stage,
        nets=nets | {AUXILIARY: common.trained(stage, judged.judge, nets[AUXILIARY].inputs)},
        turns=(Turn(net=AUXILIARY, loss=loss),),
        sources={"labelled": training_source(config, stage)},
        consts={
            "p_class": Artifact(stage=FREQUENCIES, name="p_class"),
            "right": Artifact(stage="statistics", name="right"),
            "wrong": Artifact(stage="statistics", name="wrong"),
        },
    )


@dataclasses.dataclass(frozen=True)
class SelectionCounts:
    """`selection_counts` of a batch."""

    judged: JudgedSegmenter
    thresholds: tuple[float, ...]

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities, confidence = self.judged.confidence(nets, batch["image"])
        size = jnp.stack([batch["height"], batch["width"]], 1)
        return selection_counts(probabilities, confidence, batch["label"], self.thresholds, size)


def infer_selection(config: common.Experiment, judged: JudgedSegmenter, thresholds: tuple[float, ...]) -> Infer:
    """Stage `selection`: means of the selection counts over the evaluation split."""
    return Infer(
        name="selection",
        nets=judged.nets(),
        predict=SelectionCounts(judged, thresholds),
        source=evaluation_source(config, judged.stage),
        write=Mean(),
    )


@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """The segmenter's class "label" and its "confidence", 0 to 255: both uint8 [B, H, W].

    `flip` is that of `JudgedSegmenter.probabilities`.
    """

    judged: JudgedSegmenter
    flip: bool

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities = self.judged.probabilities(nets, batch["image"], self.flip)
        return {
            "label": probabilities.argmax(-1).astype(jnp.uint8),
            "confidence": quantised(jax.nn.sigmoid(self.judged.confidence_logits(nets, probabilities))),
        }


def infer_pseudo_labels(config: common.Experiment, judged: JudgedSegmenter, flip: bool) -> Infer:
    """Stage `pseudo_labels`: `PseudoLabels` of the unlabelled images, without a threshold.

    `flip` is that of `SemiStage`.
    """
    return Infer(
        name="pseudo_labels",
        nets=judged.nets(),
        predict=PseudoLabels(judged, flip),
        source=inference_source(config, judged.stage, ids="unlabelled"),
    )


@dataclasses.dataclass(frozen=True)
class TrustedScores:
    """Log-probabilities of the classes and, as the last channel, their confidence 0..1: float32 [B, H, W, K + 1].

    The probabilities are those of `PseudoLabels`.
    """

    judged: JudgedSegmenter
    flip: bool

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        probabilities = self.judged.probabilities(nets, batch["image"], self.flip)
        confidence = jax.nn.sigmoid(self.judged.confidence_logits(nets, probabilities))
        # The floor is far below any probability that decides a class, and keeps the logarithm finite.
        return jnp.concatenate([jnp.log(jnp.maximum(probabilities, 1e-30)), confidence[..., None]], -1)


def trusted_results(
    config: common.Experiment, judged: JudgedSegmenter, threshold: float, flip: bool, trusted: Read
) -> dict[str, Eval]:
    """The annotations of figure 1: the class of each pixel of sufficient confidence, and void elsewhere.

    Result `trusted` annotates any image by the threshold, and is measured on the evaluation split. Result
    `pseudo_labels` is `trusted`, what the stage `semi` learns from, measured against the masks of the unlabelled
    images, which no stage reads.
    """
    return {
        "trusted": Eval(
            name="trusted",
            nets=judged.nets(),
            predict=TrustedScores(judged, flip),
            # The confidences are no logits, of which probabilities could be made.
            source=dataclasses.replace(evaluation_source(config, judged.stage), interpolation=None),
            threshold=threshold,
        ),
        "pseudo_labels": measured_records("pseudo_labels", config, judged.stage, trusted),
    }
