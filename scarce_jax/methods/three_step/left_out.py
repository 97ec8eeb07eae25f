"""Leaving a class out of the three steps: classifiers that learn the tags of some classes alone.

The paper leaves out "person", whose tags are often missing (section 3.1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError, nearest
from scarce_jax.losses import multi_label_cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.tagging import CLASSIFIER
from scarce_jax.recipe import Eval, NetState, Out, Source, Train

NEVER = -1e4
"""Logit of a class that is never predicted: its probability is 0 in float32."""


def class_id(name: str, info: DatasetInfo) -> int:
    """The id of the class to leave out; raises InputError if the dataset has none of this name, or nothing else."""
    if name not in info.classes:
        raise InputError(
            f"left_out is {name!r}, which is no class of dataset {info.name}{nearest(name, info.classes)}; the classes "
            f"are {', '.join(info.classes)}"
        )
    chosen = info.classes.index(name)
    if chosen == info.background:
        raise InputError(f"left_out is {name!r}, the background; expected a class of objects, or none")
    if len(info.classes) <= 2:
        raise InputError(f"left_out is {name!r}, the only class of objects of dataset {info.name}; expected none")
    return chosen


@dataclasses.dataclass(frozen=True)
class Kept:
    """The classes whose tags a classifier is taught and measured by; the tags of all others are removed.

    An image of which no tag is left stays in training, as one without objects: that is what it says once the tags are
    removed. `ClassBalance` with `at_most` leaves it out, like every image without tags.

    Attributes:
      classes: ids of the classes.
      outputs: the outputs of the classifier for them, in the same order.
      total: K, number of classes of the dataset.
    """

    classes: tuple[int, ...]
    outputs: tuple[int, ...]
    total: int

    @classmethod
    def without(cls, left_out: int, info: DatasetInfo) -> Kept:
        """All classes of objects but one, for a classifier that has an output for each of them, also that one."""
        objects = [k for k in range(len(info.classes)) if k != info.background]
        kept = [(k, output) for output, k in enumerate(objects) if k != left_out]
        return cls(*zip(*kept, strict=True), total=len(info.classes))

    @classmethod
    def only(cls, chosen: int, info: DatasetInfo) -> Kept:
        """One class, for a classifier of one output."""
        return cls((chosen,), (0,), len(info.classes))


@dataclasses.dataclass(frozen=True)
class KeptTags:
    """Transform of a source that removes the tags of other classes, where its rows have tags, after another one."""

    transform: Callable[[dict, jax.Array, Mapping], dict]
    kept: Kept

    def __call__(self, row: dict, key: jax.Array, consts: Mapping) -> dict:
        row = self.transform(row, key, consts)
        if "tags" not in row:
            return row
        mask = np.zeros(self.kept.total, np.uint8)
        mask[list(self.kept.classes)] = 1
        return {**row, "tags": row["tags"] * mask}


@dataclasses.dataclass(frozen=True)
class KeptLoss:
    """Sigmoid cross-entropy of a classifier's outputs for the kept classes; the others have no loss and no gradient."""

    module: nn.Module
    kept: Kept
    source: str = "tagged"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        logits, stats = common.apply_in_training(self.module, params, nets[CLASSIFIER], rows["image"], key=key)
        chosen, tags = logits[:, list(self.kept.outputs)], rows["tags"][:, list(self.kept.classes)]
        return multi_label_cross_entropy(chosen, tags), Out(batch_stats={CLASSIFIER: stats})


@dataclasses.dataclass(frozen=True)
class KeptLogits:
    """Prediction of a tag classifier: logits float32 [B, K], `NEVER` for classes that are not kept.

    With `KeptTags` such classes are neither in the truth nor in the prediction, so figures are means over the others.
    """

    module: nn.Module
    kept: Kept

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        logits = self.module.apply(nets[CLASSIFIER].variables, batch["image"], train=False)
        everything = jnp.full((len(logits), self.kept.total), NEVER, logits.dtype)
        return everything.at[:, list(self.kept.classes)].set(logits[:, list(self.kept.outputs)])


@dataclasses.dataclass(frozen=True)
class KeptMaps:
    """Prediction of `ClassMaps`, with `NEVER` as the logits of outputs that are not kept.

    `CompactMaps` therefore never counts a class that was left out among those of an image without tags; `KeptTags` does
    the same for images with tags.
    """

    predict: Callable[[Mapping[str, NetState], dict, Mapping], dict[str, jax.Array]]
    kept: Kept

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        view = self.predict(nets, batch, consts)
        known = np.isin(np.arange(view["logits"].shape[-1]), self.kept.outputs)
        return {**view, "logits": jnp.where(known, view["logits"], NEVER)}


@dataclasses.dataclass(frozen=True)
class KeptDraws:
    """Draws per epoch by the tags of the kept classes alone, as a `Source.weight`."""

    weight: Callable[[np.ndarray], np.ndarray]
    kept: Kept

    def __call__(self, tags: np.ndarray) -> np.ndarray:
        removed = np.zeros_like(tags)
        removed[:, list(self.kept.classes)] = np.asarray(tags)[:, list(self.kept.classes)]
        return self.weight(removed)


def source_of_kept(source: Source, kept: Kept) -> Source:
    """The source without the tags of classes that are not kept."""
    return dataclasses.replace(source, transform=KeptTags(source.transform, kept))


def measured_on_kept(evaluation: Eval, module: nn.Module, kept: Kept) -> Eval:
    """The measurement of a tag classifier's logits, of the kept classes alone."""
    source = source_of_kept(evaluation.source, kept)
    return dataclasses.replace(evaluation, predict=KeptLogits(module, kept), source=source)


def trained_on_kept(stage: Train, module: nn.Module, kept: Kept) -> Train:
    """The stage of `train_classifier`, with tags, loss and measurements of the kept classes alone."""
    return dataclasses.replace(
        stage,
        turns=tuple(dataclasses.replace(turn, loss=KeptLoss(module, kept)) for turn in stage.turns),
        sources={name: source_of_kept(source, kept) for name, source in stage.sources.items()},
        evals=tuple(measured_on_kept(evaluation, module, kept) for evaluation in stage.evals),
    )
