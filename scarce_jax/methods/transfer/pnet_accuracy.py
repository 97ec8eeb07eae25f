"""What the P-Net takes for true: shares of true, predicted and wrong masks of held-out images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage
from scarce_jax.methods.inputs import evaluation_source, net_inputs
from scarce_jax.methods.transfer.pnet import PNET, PNetStage
from scarce_jax.methods.transfer.pnet_masks import PNetJudge
from scarce_jax.recipe import Artifact, Infer, Mean, NetState, Table

ROWS = ("strong", "weak")
COLUMNS = ("true", "soft", "hard", "other image", "shifted", "background")
CAPTION = (
    "Share of masks that the pre-trained P-Net takes for true, of held-out images with strong categories alone and of "
    "those with a weak one. soft, hard: the segmenter's probabilities, and its classes. The others are true masks: of "
    "another image, moved by a fifth of the width, and of the image's background."
)


@dataclasses.dataclass(frozen=True)
class PNetReactions:
    """Counts of the masks of each image, by the kind of the image (`ROWS`) and of the mask (`COLUMNS`).

    Returns {"masks": their number, "judged_true": how many of them the P-Net takes for true}, float32 [B, 2, 6].

    Attributes:
      segmenter: the segmentation net.
      weak: ids of the weak categories; an image without them is a strong one.
    """

    segmenter: nn.Module
    judge: PNetJudge
    weak: tuple[int, ...]

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        logits, _ = self.segmenter.apply(nets[SEGMENTER].variables, batch["image"], train=False)
        masks = self.judge.masks(batch["image"], batch["label"], logits)
        true, (other, others) = masks.true(), masks.mismatched()
        shifted = jnp.roll(true, true.shape[-1] // 5, axis=-1)
        background = jnp.broadcast_to((masks.label == self.judge.background)[:, None], true.shape)
        labelled = masks.labelled
        weights = jnp.stack([labelled, labelled, labelled, others, labelled, labelled])  # [6, B, N]
        judged = self.judge(nets[PNET].variables, masks, true, masks.soft(), masks.hard(), other, shifted, background)
        weak = (batch["tags"][:, np.array(self.weak, int)] > 0).any(-1)
        kinds = jnp.stack([~weak, weak], axis=-1)[..., None]  # [B, 2, 1]
        counts = {"masks": weights, "judged_true": weights * (jnp.stack(judged) > 0)}
        return {name: kinds * count.sum(-1).T[:, None] for name, count in counts.items()}


def infer_judgement(
    config: common.Experiment,
    stage: PNetStage,
    segmenter: SegmenterStage,
    module: nn.Module,
    judge: PNetJudge,
    weak: tuple[int, ...],
) -> Infer:
    """Stage `judgement`: means of `PNetReactions` of the pre-trained P-Net over all images of the evaluation split."""
    return Infer(
        name="judgement",
        nets={
            SEGMENTER: common.frozen(module, net_inputs(segmenter.size), "segmenter", SEGMENTER),
            PNET: common.frozen(judge.module, judge.inputs, "pnet", PNET),
        },
        # Categories that are predicted alone have no true mask to compare with.
        predict=PNetReactions(module, dataclasses.replace(judge, false_positives=False), weak),
        source=evaluation_source(config, segmenter, fields=("tags",), batch=stage.eval_batch),
        write=Mean(),
        per_batch=True,
    )


def judgement_table() -> Table:
    """Table `pnet`: what the P-Net takes for true. One that judges the fit takes true masks alone."""
    names = ("masks", "judged_true")

    def make(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        rows = [
            [name, *(float(hits / masks) if masks else None for hits, masks in zip(*counts, strict=True))]
            for name, *counts in zip(ROWS, values["judged_true"], values["masks"], strict=True)
        ]
        return {"columns": ["images", *COLUMNS], "rows": rows, "caption": CAPTION}

    return Table(reads={name: Artifact(stage="judgement", name=name) for name in names}, make=make)
