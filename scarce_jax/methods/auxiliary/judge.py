"""How the auxiliary method trains the net that judges each pixel, and what it judges.

"Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review), sections 3.1 to 3.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.losses import auxiliary_loss, correctness_balance, correctness_counts, inverse_log_weights
from scarce_jax.methods import common
from scarce_jax.methods.auxiliary.selection import selection_histograms
from scarce_jax.methods.common import SEGMENTER, SegmenterStage
from scarce_jax.models.auxiliary import AuxiliaryNet
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Artifact, Infer, Mean, Net, NetState, Out, Train, Turn

AUXILIARY = "auxiliary"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuxiliaryStage:
    """Training of the auxiliary net (section 3.3); the segmenter is frozen.

    Attributes:
      steps, epochs: length of training, exactly one of them.
      batch, size, augment: as in the segmenter's stage.
      width: channels of its first convolution (32 in table 1); every layer scales with it.
      weighting: c of W = 1 / ln(c + p_class) in equation 1; None is W = 1.
      scope: over what gamma counts wrong and right pixels (see `losses.auxiliary_loss`); "none" is gamma = 1. With
        both the confidence is relative to what is usual for a class; with neither it is the probability of being right.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int
    size: tuple[int, int]
    augment: Augment
    width: int = 32
    optim: Optimizer
    weighting: float | None = 1.04
    scope: Literal["labelled_set", "batch", "none"] = "labelled_set"


class JudgedSegmenter(NamedTuple):
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
        return {
            SEGMENTER: Net(
                module=self.segmenter,
                inputs=(common.image_input(self.stage.size),),
                init_from=Artifact(stage=SEGMENTER, name=SEGMENTER),
            ),
            AUXILIARY: Net(module=self.judge, inputs=(maps,), init_from=Artifact(stage=AUXILIARY, name=AUXILIARY)),
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


def correctness_statistics(config: common.Experiment, judged: JudgedSegmenter) -> Infer:
    """Shares of right and wrong pixels of each true class on the labelled images, for gamma (equation 1)."""

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        found = judged.probabilities(nets, batch["image"]).argmax(-1).astype(jnp.uint8)
        right, wrong = correctness_counts(found, batch["label"], judged.judge.classes)
        pixels = found.shape[1] * found.shape[2]
        return {"right": right / pixels, "wrong": wrong / pixels}

    return Infer(
        name="statistics",
        nets={SEGMENTER: judged.nets()[SEGMENTER]},
        predict=predict,
        source=common.inference_source(config, judged.stage, ids="fine", labels=("fine",)),
        settings={"size": judged.stage.size},
        write=Mean(),
    )


def train_auxiliary(config: common.Experiment, stage: AuxiliaryStage, judged: JudgedSegmenter) -> Train:
    """A stage that trains the judge on the frozen segmenter's maps of the labelled images."""

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch["labelled"]
        probabilities = judged.probabilities(nets, rows["image"])
        variables = {"params": params, "batch_stats": nets[AUXILIARY].stats}
        logits, updated = judged.judge.apply(variables, probabilities, train=True, mutable=["batch_stats"])
        predictions = probabilities.argmax(-1).astype(rows["label"].dtype)
        alike = jnp.ones_like(shared["p_class"])
        value = auxiliary_loss(
            logits,
            predictions,
            rows["label"],
            class_weights=alike if stage.weighting is None else inverse_log_weights(shared["p_class"], stage.weighting),
            gamma=alike if stage.scope == "none" else correctness_balance(shared["right"], shared["wrong"]),
            scope="batch" if stage.scope == "batch" else "labelled_set",
        )
        metrics = {"confidence": jax.nn.sigmoid(logits).mean()}
        return value, Out(metrics=metrics, stats={AUXILIARY: updated["batch_stats"]})

    nets = judged.nets()
    return Train(
        name=AUXILIARY,
        nets={
            SEGMENTER: nets[SEGMENTER],
            AUXILIARY: dataclasses.replace(nets[AUXILIARY], optim=stage.optim, init_from=None),
        },
        turns=(Turn(net=AUXILIARY, loss=loss),),
        sources={"labelled": common.training_source(config, batch=stage.batch, size=stage.size, augment=stage.augment)},
        steps=common.length(stage, AUXILIARY),
        settings=stage,
        consts={
            "p_class": Artifact(stage="frequencies", name="p_class"),
            "right": Artifact(stage="statistics", name="right"),
            "wrong": Artifact(stage="statistics", name="wrong"),
        },
    )


def infer_selection(config: common.Experiment, judged: JudgedSegmenter, thresholds: tuple[float, ...]) -> Infer:
    """What the selection table is made of, on the evaluation split."""

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities, confidence = judged.confidence(nets, batch["image"])
        return selection_histograms(probabilities, confidence, batch["label"], thresholds)

    return Infer(
        name="selection",
        nets=judged.nets(),
        predict=predict,
        source=common.evaluation_source(config, judged.stage),
        settings={"size": judged.stage.size, "thresholds": thresholds},
        write=Mean(),
    )


def infer_pseudo_labels(config: common.Experiment, judged: JudgedSegmenter) -> Infer:
    """Class and confidence of the unlabelled images, not augmented; no threshold yet.

    The confidence, 0..255, is rounded down, so that a threshold of 1 selects nothing that is not certain.
    """

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        probabilities, confidence = judged.confidence(nets, batch["image"])
        return {
            "label": probabilities.argmax(-1).astype(jnp.uint8),
            "confidence": jnp.floor(jax.nn.sigmoid(confidence) * 255).astype(jnp.uint8),
        }

    return Infer(
        name="pseudo_labels",
        nets=judged.nets(),
        predict=predict,
        source=common.inference_source(config, judged.stage, ids="unlabelled"),
        settings={"size": judged.stage.size},
    )
