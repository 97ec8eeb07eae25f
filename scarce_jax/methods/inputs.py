"""What the nets of all methods read: their abstract inputs, and sources of augmented or plain images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.errors import InputError
from scarce_jax.methods.common import CachedStage, Experiment, ImageStage, SizedStage
from scarce_jax.ops.augment import Augment, augment, normalise
from scarce_jax.ops.resize import on_image
from scarce_jax.recipe import Cache, Source


def image_input(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """Abstract normalised image with which a net is initialised."""
    return jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)


def net_inputs(size: tuple[int, int], fields: tuple[str, ...] = ("image",)) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Abstract inputs of a net that reads these fields: the image, and masks of the same size."""
    mask = jax.ShapeDtypeStruct((1, *size), jnp.uint8)
    return tuple(image_input(size) if field == "image" else mask for field in fields)


@dataclasses.dataclass(frozen=True)
class Augmented:
    """Transform of a training source."""

    settings: Augment

    def __call__(self, row: dict, key: jax.Array, consts: Mapping) -> dict:
        return augment(row, key, self.settings)


def unaugmented(row: dict, key: jax.Array, consts: Mapping) -> dict:
    """Transform of a source for evaluation or inference: it only normalises the image; padding is 0, as in training."""
    canvas = row["image"].shape[:2]
    inside = on_image(canvas, row.get("height", canvas[0]), row.get("width", canvas[1]))
    return {**row, "image": jnp.where(inside[..., None], normalise(row["image"]), 0.0)}


def as_stored(row: dict, key: jax.Array, consts: Mapping) -> dict:
    """Transform that changes nothing; the image stays uint8."""
    return row


def training_source(config: Experiment, stage: ImageStage, **changes: Any) -> Source:
    """Augmented images of the training split, by default those with fine masks. `changes` are fields of the Source."""
    fields = {"ids": "fine", "labels": ("fine",), "batch": stage.batch, "size": stage.size, "fit": stage.fit}
    fields["transform"] = Augmented(stage.augment)
    return Source(dataset=config.dataset, split=config.train_split, **(fields | changes))


def cached(name: str, stage: CachedStage, source: Source, module: nn.Module, role: str, *fields: str) -> Source:
    """The source with the `Cache` of the stage's settings, if they ask for one.

    Args:
      name: name of the stage in the config.
      module: the net that is trained, of this role.
      fields: further fields of a row that the net reads.

    Raises:
      InputError: no part of the net's backbone is frozen.
    """
    if not stage.cache:
        return source
    if not getattr(getattr(module, "backbone", None), "frozen_levels", ()):
        raise InputError(
            f"--{name}.cache {stage.cache}: the net has no frozen levels whose features could be kept; set "
            f"--{name}.net.backbone.frozen (of a DINOv2 5, the whole), or leave cache out"
        )
    return dataclasses.replace(
        source, cache=Cache(net=role, module=module, draws=stage.cache, fields=("image", *fields))
    )


def inference_source(config: Experiment, stage: SizedStage, **changes: Any) -> Source:
    """Images of the training split at the stage's size, not augmented. `changes` are fields of the Source."""
    fields = {"split": config.train_split, "batch": stage.eval_batch, "size": stage.size, "fit": stage.fit}
    fields["transform"] = unaugmented
    return Source(dataset=config.dataset, **(fields | changes))


def evaluation_source(config: Experiment, stage: SizedStage, **changes: Any) -> Source:
    """All images of the evaluation split, or of no split, at the stage's size with fine masks. `changes` as above."""
    fields = {"split": config.eval_split, "labels": ("fine",), "interpolation": stage.interpolation}
    return inference_source(config, stage, **(fields | changes))
