"""Where a class's saliency is largest, and whether the class is there: pointing accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.decoupled.figure_ground import ByClass, SegmentationStage
from scarce_jax.methods.tagging import CLASSIFIER
from scarce_jax.ops.pool import unpool
from scarce_jax.recipe import Artifact, Infer, Mean, Net, NetState, Table

COLUMNS = ("class", "pointing", "chance", "images")


@dataclasses.dataclass(frozen=True)
class SaliencyMaps:
    """float32 [B, H/16, W/16, K]: what at each place of conv5_3 speaks for each class.

    The sum over channels of the activation times the class's derivative, which is pool5 times the class's saliency, put
    back where the maxima were; where it is positive, as a share of the largest. Zeros for the background.
    """

    by_class: ByClass

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        outputs = self.by_class.classes - 1
        classified = self.by_class.classify(nets, batch["image"])
        each = jnp.broadcast_to(jnp.eye(outputs), (len(classified.pool5), outputs, outputs))
        saliency = self.by_class.saliency(nets, classified, each, jnp.ones(each.shape[:2]))
        gain = (saliency * classified.pool5[:, None]).astype(jnp.float32)  # [B, L, h, w, C]
        gain = jax.vmap(lambda x: unpool(x, classified.switches[-1]).sum(-1), in_axes=1, out_axes=-1)(gain)
        gain = jax.nn.relu(gain)  # [B, 2h, 2w, L]
        gain /= jnp.maximum(gain.max((1, 2), keepdims=True), 1e-12)
        return jnp.insert(gain, self.by_class.background, 0.0, axis=-1)


@dataclasses.dataclass(frozen=True)
class PointingHits:
    """Per image, float32 [B, K]: "hits", "images" and "share" of `infer_pointing`."""

    maps: SaliencyMaps

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        saliency, labels = self.maps(nets, batch, consts), batch["label"]
        height, width, outputs = saliency.shape[1:]
        rows, columns = (
            ((2 * np.arange(n) + 1) * length) // (2 * n)
            for n, length in zip((height, width), labels.shape[1:], strict=True)
        )
        middles = labels[:, rows][:, :, columns].reshape(len(labels), -1)
        largest = saliency.reshape(len(saliency), -1, outputs).argmax(1)  # [B, K]
        classes = jnp.arange(outputs)
        share = (labels[..., None] == classes).mean((1, 2)) * (classes != self.maps.by_class.background)
        shown = share > 0
        hits = shown & (jnp.take_along_axis(middles, largest, 1) == classes)
        return {"hits": hits.astype(jnp.float32), "images": shown.astype(jnp.float32), "share": share}


def infer_pointing(
    name: str, config: common.Experiment, stage: SegmentationStage, by_class: ByClass, classifier: Net
) -> Infer:
    """A stage that looks, on the evaluation split, at the place where each class that an image shows has most saliency.

    It leaves means over images, float32 [K]: "hits" where the middle of that place is of the class, "images" that show
    the class, and its "share" of their pixels, which is what a random place would hit.

    Args:
      stage: images are looked at in the size of its crops.
      classifier: as an earlier stage left it.
    """
    source = common.evaluation_source(config, stage)
    return Infer(
        name=name,
        nets={CLASSIFIER: classifier},
        predict=PointingHits(SaliencyMaps(by_class)),
        source=dataclasses.replace(source, size=stage.crops.crop),
        write=Mean(),
    )


def pointing_table(stage: str, info: DatasetInfo) -> Table:
    """The share of images in which the largest saliency of a class lies on it, over all and by class.

    "images" is the share of the split's images that show the class; in the first row classes count by their images.
    """

    def make(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        def row(name: str, classes: Any) -> list[Any]:
            hits, images, share = (float(values[key][classes].sum()) for key in ("hits", "images", "share"))
            return [name, hits / images if images else None, share / images if images else None, images]

        objects = [k for k in range(len(info.classes)) if k != info.background]
        rows = [row("all", objects), *(row(info.classes[k], [k]) for k in objects)]
        # Of pairs of an image and a class, so that more than 1 is possible.
        return {"columns": list(COLUMNS), "rows": rows}

    names = ("hits", "images", "share")
    return Table(reads={name: Artifact(stage=stage, name=name) for name in names}, make=make)
