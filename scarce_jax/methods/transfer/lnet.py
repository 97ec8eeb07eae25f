"""L-Net: what it learns of strong categories becomes label maps of images that have tags alone.

"Transferable Semi-supervised Semantic Segmentation", section "L-Net: Generating Label Maps for Weak Categories": a
classifier whose activation maps say where a tag is, the L-Net, which tells any object from background, and the
self-diffusion of the maps over superpixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.cpu.diffusion import Diffusion, Status
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.losses import binary_cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.segmentation import total_weight
from scarce_jax.methods.tagging import CLASSIFIER
from scarce_jax.ops.augment import normalise
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.recipe import Infer, NetState, Out, Train, Turn

LNET = "lnet"
"""The role of the net that tells objects from background; a net of one output."""


def train_lnet(config: common.Experiment, stage: SegmenterStage, module: nn.Module, background: int) -> Train:
    """Stage `lnet`, on the strong images."""
    common.check_unmeasured(stage, "lnet", "the L-Net predicts no class")
    if stage.class_weighting is not None:
        raise InputError(f"lnet.class_weighting is {stage.class_weighting}; expected none, the L-Net has no classes")
    source = common.training_source(
        config, batch=stage.batch, size=stage.size, augment=stage.augment, weight=common.draws(stage)
    )
    return Train(
        name="lnet",
        nets={LNET: common.trained(stage, module, (common.image_input(stage.size),))},
        turns=(Turn(net=LNET, loss=ObjectnessLoss(module, stage.aux_weight, background)),),
        sources={"labelled": source},
        steps=common.resolve_length(stage, "lnet"),
        accumulate=stage.accumulate,
    )


@dataclasses.dataclass(frozen=True)
class ObjectnessLoss:
    """Equation 1: binary cross-entropy against the mask without its semantics, the mean over its pixels.

    Logits of a lower resolution are interpolated to the mask's. (The paper's rate of 5e-8 belongs to a loss that is
    summed over the 321 x 321 pixels of an image: for the mean it is 5e-8 * 321^2 = 5e-3.)
    """

    module: nn.Module
    aux_weight: float
    background: int
    source: str = "labelled"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        labels = rows["label"]
        variables = {"params": params, "batch_stats": nets[LNET].stats}
        (logits, aux), updated = self.module.apply(
            variables, rows["image"], train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )

        def against_mask(logits: jax.Array) -> jax.Array:
            logits = resize_bilinear(logits, labels.shape[1:3], align_corners=True)[..., 0]
            return binary_cross_entropy(logits, labels != self.background, labels=labels)

        loss = against_mask(logits)
        metrics = {"cross_entropy": loss}
        if aux is not None:
            metrics["auxiliary_cross_entropy"] = against_mask(aux)
            loss += self.aux_weight * metrics["auxiliary_cross_entropy"]
        stats = {LNET: updated.get("batch_stats", {})}
        return loss, Out(metrics=metrics, stats=stats, weight=total_weight(labels, None))


@dataclasses.dataclass(frozen=True)
class ClassMaps:
    """What the self-diffusion starts from: "image", "tags", "cam" [B, h, w, K - 1], "objectness" [B, h, w] (float16).

    Attributes:
      lnet: None leaves the objectness out.
    """

    classifier: nn.Module
    lnet: nn.Module | None
    background: int

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        images = normalise(batch["image"])
        maps = self.classifier.apply(nets[CLASSIFIER].variables, images, method="maps")
        present = jnp.delete(batch["tags"], self.background, axis=-1)
        maps = jax.nn.relu(maps) * present[:, None, None].astype(jnp.float32)
        # Only a map's shape counts; a float16 of its own scale might overflow.
        maps /= jnp.maximum(maps.max((1, 2), keepdims=True), 1e-12)
        fields = {"image": batch["image"], "tags": batch["tags"], "cam": maps.astype(jnp.float16)}
        if self.lnet is not None:
            logits, _ = self.lnet.apply(nets[LNET].variables, images, train=False)
            fields["objectness"] = jax.nn.sigmoid(logits[..., 0].astype(jnp.float32)).astype(jnp.float16)
        return fields


def infer_label_maps(
    name: str,
    config: common.Experiment,
    stage: SegmenterStage,
    classifier: nn.Module,
    lnet: nn.Module | None,
    diffusion: Diffusion,
    info: DatasetInfo,
) -> Infer:
    """A stage that leaves a label map ("label", and a "status") of every image without a fine mask, at `stage`'s size.

    Args:
      lnet: None diffuses without it: superpixels are then compared by colour alone.
    """
    inputs = (common.image_input(stage.size),)
    nets = {CLASSIFIER: common.frozen(classifier, inputs, "cam", CLASSIFIER)}
    if lnet is not None:
        nets[LNET] = common.frozen(lnet, inputs, "lnet", LNET)
    return Infer(
        name=name,
        nets=nets,
        predict=ClassMaps(classifier, lnet, info.background),
        # As stored, since the host work looks at its colours.
        source=common.inference_source(config, stage, ids="unlabelled", fields=("tags",), transform=common.as_stored),
        finish=diffusion,
        status=tuple(status.name.lower() for status in Status),
    )
