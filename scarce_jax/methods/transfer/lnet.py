"""The L-Net, and the label maps of images that have only tags.

"Transferable Semi-supervised Semantic Segmentation", section "L-Net: Generating Label Maps for Weak Categories". The
class activation maps of a tag classifier show where each tag is. The L-Net distinguishes objects of all categories from
the background. Self-diffusion over superpixels makes label maps of both.
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
from scarce_jax.methods.inputs import (
    as_stored,
    cached,
    evaluation_source,
    inference_source,
    net_inputs,
    training_source,
    unaugmented,
)
from scarce_jax.methods.segmentation import total_weight
from scarce_jax.methods.tagging import CLASSIFIER
from scarce_jax.ops.logits import Logits, full_size
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.recipe import Infer, Maps, NetState, Out, Train, Turn

LNET = "lnet"
"""Role of the L-Net, a net with one output that distinguishes objects from the background."""


def train_lnet(config: common.Experiment, stage: SegmenterStage, module: nn.Module, background: int) -> Train:
    """Stage `lnet`: trains the L-Net on the strong images.

    Raises:
      InputError: `class_weighting` or `eval_every` is set.
    """
    if stage.class_weighting is not None:
        raise InputError(
            f"lnet.class_weighting is {stage.class_weighting}; expected none, because the L-Net has no classes"
        )
    source = training_source(config, stage, weight=common.draws(stage))
    return common.train(
        "lnet",
        config,
        stage,
        nets={LNET: common.trained(stage, module, net_inputs(stage.size))},
        turns=(Turn(net=LNET, loss=ObjectnessLoss(module, stage.aux_weight, background)),),
        sources={"labelled": cached("lnet", stage, source, module, LNET)},
    )


@dataclasses.dataclass(frozen=True)
class ObjectnessLoss:
    """Equation 1: mean binary cross-entropy of objects against background, over the pixels that are not void.

    Logits of lower resolution are interpolated to the size of the mask. The paper's learning rate of 5e-8 and weight
    decay of 5e-4 are for a sum over the 321 x 321 pixels of an image. For the mean they are 5e-8 * 321^2 = 5.15e-3 and
    5e-4 / 321^2 = 4.9e-9 (`optim.caffe`), exactly so where no pixel is void.
    """

    module: nn.Module
    aux_weight: float
    background: int
    source: str = "labelled"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        labels = rows["label"]
        (logits, aux), stats = common.apply_in_training(self.module, params, nets[LNET], rows["image"], key=key)

        def against_mask(logits: Logits) -> jax.Array:
            logits = resize_bilinear(full_size(logits), labels.shape[1:3], align_corners=True)[..., 0]
            return binary_cross_entropy(logits, labels != self.background, labels=labels)

        loss = against_mask(logits)
        metrics = {"cross_entropy": loss}
        if aux is not None:
            metrics["auxiliary_cross_entropy"] = against_mask(aux)
            loss += self.aux_weight * metrics["auxiliary_cross_entropy"]
        return loss, Out(metrics=metrics, batch_stats={LNET: stats}, weight=total_weight(labels))


@dataclasses.dataclass(frozen=True)
class Objectness:
    """The L-Net's class-agnostic map M: the probability of an object at each pixel, float32 [B, H, W, 1]."""

    module: nn.Module

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        logits, _ = self.module.apply(nets[LNET].variables, batch["image"], train=False)
        return jax.nn.sigmoid(resize_bilinear(full_size(logits), batch["image"].shape[1:3], align_corners=True))


def objectness_map(name: str, config: common.Experiment, stage: SegmenterStage, module: nn.Module) -> Maps:
    """The map M of any image, also of categories that no image of the training shows (figures 3 and 5)."""
    return Maps(
        name=name,
        names=("object",),
        nets={LNET: common.frozen(module, net_inputs(stage.size), "lnet", LNET)},
        predict=Objectness(module),
        source=evaluation_source(config, stage),
    )


@dataclasses.dataclass(frozen=True)
class ClassMaps:
    """Inputs of the self-diffusion.

    It returns the "image", "height", "width" and "tags" of the row, "cam" float16 [B, h, w, K - 1] in 0..1, and
    "objectness" float16 [B, h', w'] in 0..1.

    Attributes:
      lnet: None omits the objectness.
    """

    classifier: nn.Module
    lnet: nn.Module | None
    background: int

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        images = jax.vmap(lambda row: unaugmented(row, None, {})["image"])(
            {name: batch[name] for name in ("image", "height", "width")}
        )
        maps = self.classifier.apply(nets[CLASSIFIER].variables, images, method="class_activation_maps")
        present = jnp.delete(batch["tags"], self.background, axis=-1)
        maps = jax.nn.relu(maps) * present[:, None, None].astype(jnp.float32)
        # A cell in the padding must not decide the scale of a map.
        rows, columns = (
            (jnp.arange(cells) + 0.5) * (length / cells) < batch[name][:, None]
            for name, cells, length in zip(("height", "width"), maps.shape[1:3], images.shape[1:3], strict=True)
        )
        maps *= (rows[:, :, None] & columns[:, None])[..., None]
        # The scale of a map has no meaning, and might overflow float16.
        maps /= jnp.maximum(maps.max((1, 2), keepdims=True), 1e-12)
        fields = {name: batch[name] for name in ("image", "tags", "height", "width")} | {
            "cam": maps.astype(jnp.float16)
        }
        if self.lnet is not None:
            logits, _ = self.lnet.apply(nets[LNET].variables, images, train=False)
            fields["objectness"] = jax.nn.sigmoid(full_size(logits)[..., 0]).astype(jnp.float16)
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
    """A stage that infers "label" and "status" of each image without a fine mask, and keeps the L-Net's "objectness".

    Args:
      stage: settings with the size of the label maps.
      lnet: None uses only the class activation maps.
    """
    inputs = net_inputs(stage.size)
    nets = {CLASSIFIER: common.frozen(classifier, inputs, "cam", CLASSIFIER)}
    if lnet is not None:
        nets[LNET] = common.frozen(lnet, inputs, "lnet", LNET)
    return Infer(
        name=name,
        nets=nets,
        predict=ClassMaps(classifier, lnet, info.background),
        # As stored, because self-diffusion reads the colours of the image.
        source=inference_source(config, stage, ids="unlabelled", fields=("tags",), transform=as_stored),
        finish=diffusion,
        status=tuple(status.name.lower() for status in Status),
    )
