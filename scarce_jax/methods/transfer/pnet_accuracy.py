"""Accuracy of the P-Net on masks of held-out strong images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, net_inputs
from scarce_jax.methods.transfer.pnet import PNET, PNetJudge, PNetStage
from scarce_jax.recipe import Artifact, Infer, Mean, NetState, Table

COLUMNS = ("real right", "predicted right", "right", "real above predicted")


@dataclasses.dataclass(frozen=True)
class PNetHits:
    """How many samples of each image the P-Net judges correctly: four float32 arrays [B], zero for other images.

    "images" is 1 for a strong image. "real" and "predicted" are the shares of its true and of its predicted masks that
    the P-Net recognises. "ranked" is the share of pairs in which the true mask has the larger logit.

    Attributes:
      segmenter: the segmentation net.
      weak: ids of the weak categories; an image without them is a strong one.
    """

    segmenter: nn.Module
    judge: PNetJudge
    weak: tuple[int, ...]

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        logits, _ = self.segmenter.apply(nets[SEGMENTER].variables, batch["image"], train=False)
        real, predicted, weights = self.judge.samples(batch["image"], batch["label"], logits)
        judged = self.judge(nets[PNET].variables, real, predicted)
        of_real, of_predicted = (x.reshape(weights.shape) for x in judged)  # [B, N]
        strong = ~(batch["tags"][:, np.array(self.weak, int)] > 0).any(-1) & (weights.sum(-1) > 0)

        def share(hits: jax.Array) -> jax.Array:
            return strong * (weights * hits).sum(-1) / jnp.maximum(weights.sum(-1), 1)

        return {
            "images": strong.astype(jnp.float32),
            "real": share(of_real > 0),
            "predicted": share(of_predicted <= 0),
            "ranked": share(of_real > of_predicted),
        }


def infer_judgement(
    config: common.Experiment,
    stage: PNetStage,
    segmenter: SegmenterStage,
    module: nn.Module,
    judge: PNetJudge,
    weak: tuple[int, ...],
) -> Infer:
    """Stage `judgement`: means of `PNetHits` of the pre-trained P-Net over all images of the evaluation split."""
    return Infer(
        name="judgement",
        nets={
            SEGMENTER: common.frozen(module, net_inputs(segmenter.size), "segmenter", SEGMENTER),
            PNET: common.frozen(judge.module, judge.inputs, "pnet", PNET),
        },
        predict=PNetHits(module, judge, weak),
        source=common.evaluation_source(config, segmenter, fields=("tags",), batch=stage.eval_batch),
        write=Mean(),
    )


def judgement_table() -> Table:
    """Table `pnet`: shares of the masks of held-out strong images that the P-Net judges correctly.

    The shares are means over images. "right" is the mean of "real right" and "predicted right". Guessing gives 0.5 for
    "right" and for "real above predicted".
    """
    names = ("images", "real", "predicted", "ranked")

    def make(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        images, *shares = (float(values[name]) for name in names)
        real, predicted, ranked = (share / images if images else None for share in shares)
        right = (real + predicted) / 2 if images else None
        return {"columns": list(COLUMNS), "rows": [[real, predicted, right, ranked]], "share of images": images}

    return Table(reads={name: Artifact(stage="judgement", name=name) for name in names}, make=make)
