"""How often P-Net has masks of held-out strong images right."""

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
from scarce_jax.methods.transfer.pnet import PNET, Judge, PNetStage
from scarce_jax.recipe import Artifact, Infer, Mean, NetState, Table

COLUMNS = ("real right", "predicted right", "right", "real above predicted")


@dataclasses.dataclass(frozen=True)
class PNetHits:
    """Per image: 1 if it is strong ("images"), and the shares of its samples that P-Net has right.

    Attributes:
      segmenter: the segmentation net.
      weak: class ids; an image without any is a strong one.
    """

    segmenter: nn.Module
    judge: Judge
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
    judge: Judge,
    weak: tuple[int, ...],
) -> Infer:
    """Stage `judgement`: how the pre-trained P-Net judges held-out strong images, those without a weak category.

    It leaves means over all images of the evaluation split; see `PNetHits`.
    """
    images = common.image_input(segmenter.size)
    source = common.evaluation_source(config, segmenter, ("tags",))
    return Infer(
        name="judgement",
        nets={
            SEGMENTER: common.frozen(module, (images,), "segmenter", SEGMENTER),
            PNET: common.frozen(judge.module, judge.inputs, "pnet", PNET),
        },
        predict=PNetHits(module, judge, weak),
        source=dataclasses.replace(source, batch=stage.eval_batch),
        write=Mean(),
    )


def judgement_table() -> Table:
    """Table `pnet`: shares of masks of held-out strong images that P-Net tells right, the mean over images.

    By chance each is 0.5, or the first two together. "right" is the mean of the first two; the last is the share of
    pairs in which the true mask is judged the likelier one.
    """

    def make(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        images = float(values["images"])
        real, predicted, ranked = (
            float(values[name]) / images if images else None for name in ("real", "predicted", "ranked")
        )
        right = None if not images else (real + predicted) / 2
        return {"columns": list(COLUMNS), "rows": [[real, predicted, right, ranked]], "share of images": images}

    names = ("images", "real", "predicted", "ranked")
    return Table(reads={name: Artifact(stage="judgement", name=name) for name in names}, make=make)
