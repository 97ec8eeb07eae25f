"""Where a class's saliency is largest, and whether the class is there: pointing accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.methods import common
from scarce_jax.methods.decoupled.figure_ground import ByClass, SegmentationStage
from scarce_jax.methods.supervised import CLASSIFIER
from scarce_jax.ops.pool import unpool
from scarce_jax.recipe import Artifact, Infer, Mean, Net, NetState, Table

COLUMNS = ("class", "pointing", "chance", "images")


def saliency_maps(by_class: ByClass) -> Callable:
    """`(nets, batch, consts) -> float32 [B, H/16, W/16, K]`: what at each place of conv5_3 speaks for each class.

    The sum over channels of the activation times the class's derivative, which is pool5 times the class's saliency, put
    back where the maxima were; where it is positive, as a share of the largest. Zeros for the background.
    """
    outputs = by_class.classes - 1

    def maps(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        found = by_class.classify(nets, batch["image"])
        each = jnp.broadcast_to(jnp.eye(outputs), (len(found.pool5), outputs, outputs))
        saliency = by_class.saliency(nets, found, each, jnp.ones(each.shape[:2]))
        gain = (saliency * found.pool5[:, None]).astype(jnp.float32)  # [B, L, h, w, C]
        gain = jax.vmap(lambda x: unpool(x, found.switches[-1]).sum(-1), in_axes=1, out_axes=-1)(gain)
        gain = jax.nn.relu(gain)  # [B, 2h, 2w, L]
        gain /= jnp.maximum(gain.max((1, 2), keepdims=True), 1e-12)
        return jnp.insert(gain, by_class.background, 0.0, axis=-1)

    return maps


def infer_pointing(
    name: str, config: common.Experiment, stage: SegmentationStage, by_class: ByClass, classifier: Net
) -> Infer:
    """A stage that looks, on the evaluation split, at the place where each class that an image shows has most saliency.

    Means over images, float32 [K]: "hits" where the middle of that place is of the class, "images" that show the
    class, and its "share" of their pixels, which is what a random place would hit.

    Args:
      stage: at the size of whose crops images are looked at.
      classifier: as an earlier stage left it.
    """
    maps = saliency_maps(by_class)

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        found, truth = maps(nets, batch, consts), batch["label"]
        height, width = found.shape[1:3]
        rows, columns = (
            ((2 * np.arange(n) + 1) * length) // (2 * n)
            for n, length in zip((height, width), truth.shape[1:], strict=True)
        )
        middles = truth[:, rows][:, :, columns].reshape(len(truth), -1)
        largest = found.reshape(len(found), -1, by_class.classes).argmax(1)  # [B, K]
        classes = jnp.arange(by_class.classes)
        share = (truth[..., None] == classes).mean((1, 2)) * (classes != by_class.background)
        shown = share > 0
        hits = shown & (jnp.take_along_axis(middles, largest, 1) == classes)
        return {"hits": hits.astype(jnp.float32), "images": shown.astype(jnp.float32), "share": share}

    source = common.evaluation_source(config, stage)
    return Infer(
        name=name,
        nets={CLASSIFIER: classifier},
        predict=predict,
        source=dataclasses.replace(source, size=stage.crops.crop),
        settings={"size": stage.crops.crop},
        write=Mean(),
    )


def pointing_table(stage: str, info: DatasetInfo) -> Table:
    """The share of images in which the largest saliency of a class lies on it, over all and by class.

    "images" is the share of the split's images that show the class; in the first row classes count by their images.
    """

    def make(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        def row(name: str, kept: Any) -> list[Any]:
            hits, images, share = (float(values[key][kept].sum()) for key in ("hits", "images", "share"))
            return [name, hits / images if images else None, share / images if images else None, images]

        objects = [k for k in range(len(info.classes)) if k != info.background]
        rows = [row("all", objects), *(row(info.classes[k], [k]) for k in objects)]
        # Of pairs of an image and a class, so that more than 1 is possible.
        return {"columns": list(COLUMNS), "rows": rows}

    names = ("hits", "images", "share")
    return Table(reads={name: Artifact(stage=stage, name=name) for name in names}, make=make)
