"""Maps of what the classifier and the bridging layers say of each class; whether the saliency lies on the class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER
from scarce_jax.methods.decoupled.figure_ground import ByClass, SegmentationStage
from scarce_jax.methods.inputs import evaluation_source
from scarce_jax.methods.tagging import CLASSIFIER
from scarce_jax.ops.pool import unpool
from scarce_jax.recipe import Artifact, Infer, Mean, Net, NetState, Table

COLUMNS = ("class", "pointing", "chance", "images")


@dataclasses.dataclass(frozen=True)
class SaliencyMaps:
    """Maps of the evidence for each class at each place of conv5_3, float32 [B, H/16, W/16, K] in 0..1.

    A map is the product of pool5 and the class's saliency, unpooled and summed over channels. Negative values are zero,
    and the largest value is one. The map of the background is zero. A classifier without switches has maps
    [B, H/32, W/32, K], of its last features.
    """

    by_class: ByClass

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        outputs = self.by_class.classes - 1
        classified = self.by_class.classify(nets, batch["image"])
        each = jnp.broadcast_to(jnp.eye(outputs), (len(classified.pool5), outputs, outputs))
        saliency = self.by_class.saliency(nets, classified, each, jnp.ones(each.shape[:2]))
        gain = (saliency * classified.pool5[:, None]).astype(jnp.float32)  # [B, L, h, w, C]
        if classified.switches:
            gain = jax.vmap(lambda x: unpool(x, classified.switches[-1]), in_axes=1, out_axes=1)(gain)
        gain = jax.nn.relu(jnp.moveaxis(gain.sum(-1), 1, -1))  # [B, 2h, 2w, L], or [B, h, w, L]
        gain /= jnp.maximum(gain.max((1, 2), keepdims=True), 1e-12)
        return jnp.insert(gain, self.by_class.background, 0.0, axis=-1)


@dataclasses.dataclass(frozen=True)
class BridgingMaps:
    """The most representative channel of the class-specific activation map g^l, float32 [B, H/32, W/32, K] in 0..1.

    Figure 2 shows such channels; which one is representative is not said. Here it is the one with the largest mean. Its
    largest value becomes one. Of classes that the classifier does not find, and of the background, the maps are zero.
    """

    by_class: ByClass

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        by_class, outputs = self.by_class, self.by_class.classes - 1
        classified = by_class.classify(nets, batch["image"])
        probabilities = jax.nn.sigmoid(classified.average)
        each = jnp.broadcast_to(jnp.eye(outputs), (len(probabilities), outputs, outputs))
        saliency = by_class.saliency(nets, classified, each, probabilities)

        def bridge(saliency: jax.Array) -> jax.Array:
            inputs = classified.pool5, saliency, *classified.switches
            _, state = by_class.segmenter.apply(
                nets[SEGMENTER].variables,
                *inputs,
                train=False,
                capture_intermediates=lambda module, _: module.name == "bridge",
            )
            (activation,) = state["intermediates"]["bridge"]["__call__"]
            channel = activation.mean((1, 2)).argmax(-1)[:, None, None, None]
            return jnp.take_along_axis(activation, channel, -1)[..., 0].astype(jnp.float32)  # [B, h, w]

        maps = jnp.moveaxis(jax.lax.map(bridge, jnp.moveaxis(saliency, 1, 0)), 0, -1)  # [B, h, w, L]
        maps = jax.nn.relu(maps) * (probabilities > 0.5)[:, None, None]
        maps /= jnp.maximum(maps.max((1, 2), keepdims=True), 1e-12)
        return jnp.insert(maps, by_class.background, 0.0, axis=-1)


@dataclasses.dataclass(frozen=True)
class PointingHits:
    """Whether the saliency of each class points at it: three float32 arrays [B, K], zero for the background.

    "images" is 1 if the image shows the class. "hits" is 1 if also the pixel in the middle of the place with the
    largest saliency is of the class. "share" is the share of the image's pixels that are of the class, which is the
    probability that a random pixel hits it.
    """

    maps: SaliencyMaps

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        saliency, labels = self.maps(nets, batch, consts), batch["label"]
        height, width, outputs = saliency.shape[1:]
        rows, columns = (
            ((2 * np.arange(n) + 1) * length) // (2 * n)
            for n, length in zip((height, width), labels.shape[1:], strict=True)
        )
        middles = labels[:, rows][:, :, columns].reshape(len(labels), -1)  # [B, H, W] -> [B, h * w]
        largest = saliency.reshape(len(saliency), -1, outputs).argmax(1)  # [B, K]
        classes = jnp.arange(outputs)
        pixels = batch["height"] * batch["width"]
        share = (labels[..., None] == classes).sum((1, 2)) / pixels[:, None]
        share *= classes != self.maps.by_class.background
        shown = share > 0
        hits = shown & (jnp.take_along_axis(middles, largest, 1) == classes)
        return {"hits": hits.astype(jnp.float32), "images": shown.astype(jnp.float32), "share": share}


def infer_pointing(
    name: str, config: common.Experiment, stage: SegmentationStage, by_class: ByClass, classifier: Net
) -> Infer:
    """A stage that leaves the means of `PointingHits` over the evaluation split.

    Args:
      stage: settings whose crop is the size of the images.
      classifier: the classifier of an earlier stage.
    """
    return Infer(
        name=name,
        nets={CLASSIFIER: classifier},
        predict=PointingHits(SaliencyMaps(by_class)),
        source=evaluation_source(config, stage, size=stage.crops.crop),
        write=Mean(),
    )


def pointing_table(stage: str, info: DatasetInfo) -> Table:
    """Table of the share of images in which the largest saliency of a class lies on the class.

    The first row is over all classes, weighted by their number of images. "chance" is what random pixels would hit, and
    "images" the share of the images that show the class; in the first row it is a sum, which may be above 1.
    """
    names = ("hits", "images", "share")

    def make(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        def row(name: str, classes: list[int]) -> list[Any]:
            hits, images, share = (float(values[key][classes].sum()) for key in names)
            return [name, hits / images if images else None, share / images if images else None, images]

        objects = [k for k in range(len(info.classes)) if k != info.background]
        rows = [row("all", objects), *(row(info.classes[k], [k]) for k in objects)]
        return {"columns": list(COLUMNS), "rows": rows}

    return Table(reads={name: Artifact(stage=stage, name=name) for name in names}, make=make)
