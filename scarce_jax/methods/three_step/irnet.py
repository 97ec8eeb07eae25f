"""IRNet (Ahn et al., 2019): its losses on labels of class activation maps, and the labels that it makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Interval
from einops import reduce

from scarce_jax.data.schema import IGNORE
from scarce_jax.methods.common import ImageStage
from scarce_jax.methods.three_step.cams import as_scores, to_class_ids
from scarce_jax.models.irnet import TAPS
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.affinity import affinities, sources, targets, vectors
from scarce_jax.ops.random_walk import random_walk
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.ranges import CountOrZero, Positive, Share
from scarce_jax.recipe import NetState, Out

ENCODER, IRNET = "encoder", "irnet"
"""The roles of the frozen ResNet, and of the branches on it."""

EPSILON = 1e-5

Radius = Annotated[int, Interval(ge=2, le=100)]

START = {"maps": "maps", "labels": "refined"}
"""`Walk.start` -> field of the rows from which the walk starts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IRNetStage(ImageStage):
    """Settings of the training of IRNet's branches on a frozen ResNet. `init_from` gives the weights of the ResNet.

    Attributes:
      backbone: the ResNet; its width, a multiple of 16, is also that of the branches. Without `init_from`, its weights
        are those of the classifier, whose net must then have the same backbone. A ResNet of 50 layers in the paper. It
        is frozen whole, so that `frozen` and `frozen_statistics` change nothing.
      radius: pairs of pixels are closer than this, in quarters of the image's pixels. 10 in the code of
        IRNet's authors.
    """

    backbone: ResNetConfig = ResNetConfig(depth=50)
    radius: Radius = 10

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.backbone.width % 16:
            yield "backbone.width", "a multiple of 16, for the groups of IRNet's normalisation"
        reach = self.radius - 1
        grid = tuple(-(-side // 4) for side in self.augment.crop)
        if grid[0] <= reach or grid[1] <= 2 * reach:
            yield "augment.crop", f"more than {4 * reach} x {8 * reach} pixels, or a radius below {self.radius}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Walk:
    """The random walk that spreads class activation maps up to boundaries.

    Attributes:
      start: what is spread: "maps", the class activation maps, as in the authors' code; or "labels", those labels that
        the CRF made of them at `cams.foreground`.
      radius: pairs of pixels are closer than this, in quarters of the image's pixels.
      beta: power of the affinities.
      steps: number of steps; 256 are the authors' 8 squarings of the transition matrix.
      per_class: the largest score of each class is 1, rather than that of each image. So no class falls
        below the threshold because another one has larger scores. The authors' code divides by image.
      threshold: score of the background, 0..1; the largest score is 1. 0.3 and 0.5 in the paper's table 3.
    """

    start: Literal["maps", "labels"] = "maps"
    radius: Radius = 5
    beta: Positive = 10.0
    steps: CountOrZero = 256
    per_class: bool = False
    threshold: Share = 0.3


def branches(module: nn.Module, encoder: nn.Module, nets: Mapping[str, NetState], params: Any, images: jax.Array):
    """IRNet's boundary logits [B, h, w] and displacements [B, h, w, 2] of images [B, H, W, 3]; h = H/4, rounded up."""
    layers = encoder.apply(nets[ENCODER].variables, images, method="layers")
    edge, displacement = module.apply({"params": params}, *(layers[name] for name in TAPS), train=True)
    # A ResNet of Caffe's geometry has one more place along an even side, outside of the image.
    height, width = (-(-side // 4) for side in images.shape[1:3])
    return edge[:, :height, :width], displacement[:, :height, :width]


def relation_losses(
    edge: jax.Array, displacement: jax.Array, labels: jax.Array, radius: int, background: int
) -> dict[str, jax.Array]:
    """The four losses of IRNet's authors (jiwoon-ahn/irn), each a mean over the pairs of its kind in the batch.

    Args:
      edge: floating [B, h, w], boundary logits.
      displacement: floating [B, h, w, 2], (rows, columns).
      labels: uint8 [B, h, w], class ids or 255.

    Returns:
      float32 scalars "same_class", "other_class" (affinities), "objects" and "background" (displacements).
    """
    affinity = affinities(jax.nn.sigmoid(edge.astype(jnp.float32)), radius)  # [P, B, h', w']
    pairs = vectors(radius)
    first, second = sources(labels, radius), jnp.stack([targets(labels, radius, v) for v in pairs])
    known = (first != IGNORE) & (second != IGNORE)
    alike = known & (first == second)
    object_pairs, background_pairs = alike & (first != background), alike & (first == background)

    def mean(values: jax.Array, chosen: jax.Array) -> jax.Array:
        return jnp.sum(values * chosen) / (chosen.sum() + EPSILON)

    same, other = -jnp.log(affinity + EPSILON), -jnp.log((1 - affinity) + EPSILON)
    start = sources(displacement.astype(jnp.float32), radius)  # [B, h', w', 2]
    ends = jnp.stack([targets(displacement.astype(jnp.float32), radius, v) for v in pairs])
    between = start - ends  # [P, B, h', w', 2]
    toward = jnp.asarray(pairs, jnp.float32)[:, None, None, None]
    return {
        "same_class": (mean(same, background_pairs) + mean(same, object_pairs)) / 2,
        "other_class": mean(other, known & ~alike),
        "objects": mean(jnp.abs(between - toward).mean(-1), object_pairs),
        "background": mean(jnp.abs(between).mean(-1), background_pairs),
    }


@dataclasses.dataclass(frozen=True)
class RelationLoss:
    """Half the sum of the four losses, against labels at a quarter of the size."""

    module: nn.Module
    encoder: nn.Module
    radius: int
    background: int
    source: str = "labelled"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        edge, displacement = branches(self.module, self.encoder, nets, params, rows["image"])
        labels = quarter_labels(rows["label"])
        losses = relation_losses(edge, displacement, labels, self.radius, self.background)
        weight = jnp.sum((labels != IGNORE).astype(jnp.float32))
        return sum(losses.values()) / 2, Out(metrics=losses, weight=weight)


def quarter_labels(labels: jax.Array) -> jax.Array:
    """Every fourth pixel, from the third on, of labels [B, H, W]: [B, ceil(H/4), ceil(W/4)]."""
    for axis in (1, 2):
        length = labels.shape[axis]
        labels = jnp.take(labels, jnp.minimum(4 * jnp.arange(-(-length // 4)) + 2, length - 1), axis=axis)
    return labels


@dataclasses.dataclass(frozen=True)
class MeanDisplacement:
    """ "displacement" float32 [B, 2]: the mean of each image; the authors subtract that of all training images."""

    module: nn.Module
    encoder: nn.Module

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        _, displacement = branches(self.module, self.encoder, nets, nets[IRNET].params, batch["image"])
        return {"displacement": displacement.mean((1, 2))}


@dataclasses.dataclass(frozen=True)
class Boundaries:
    """The prediction of one view: "edge" float32 [B, h, w], logits, and those of `START` and "classes" in the row."""

    module: nn.Module
    encoder: nn.Module

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        edge, _ = branches(self.module, self.encoder, nets, nets[IRNET].params, batch["image"])
        return {"edge": edge, **{name: batch[name] for name in (*START.values(), "classes") if name in batch}}


def shares(labels: jax.Array, classes: jax.Array) -> jax.Array:
    """The share of each of an image's classes in blocks of 4 x 4 pixels.

    Args:
      labels: uint8 [B, H, W], class ids.
      classes: uint8 [B, M], class ids, 255 where there are fewer than M.

    Returns:
      float32 [B, ceil(H/4), ceil(W/4), M] in 0..1. Pixels beyond the edge belong to no class.
    """
    beyond = ((0, -side % 4) for side in labels.shape[1:])
    labels = jnp.pad(labels, ((0, 0), *beyond), constant_values=IGNORE)[..., None]  # [B, 4 * h, 4 * w, 1]
    classes = classes[:, None, None]
    shows = (labels == classes) & (classes != IGNORE)
    return reduce(shows.astype(jnp.float32), "b (h i) (w j) m -> b h w m", "mean", i=4, j=4)


@dataclasses.dataclass(frozen=True)
class WalkedLabels:
    """Labels from the random walk; the boundaries are those of the mean of all views.

    Attributes:
      size: (height, width) of the images.
      background: class.
    """

    walk: Walk
    size: tuple[int, int]
    background: int

    def __call__(
        self, predictions: Sequence[Mapping[str, jax.Array]], mirrored: Sequence[bool]
    ) -> dict[str, jax.Array]:
        """ "label" uint8 [B, H, W], class ids; "edge" uint8 [B, H/4, W/4], boundary probabilities, 255 being 1."""
        logits = sum(
            view["edge"][:, :, ::-1] if flipped else view["edge"]
            for view, flipped in zip(predictions, mirrored, strict=True)
        )
        edge = jax.nn.sigmoid(logits / len(predictions))  # [B, h, w]
        classes = predictions[0]["classes"]
        if self.walk.start == "maps":
            maps = predictions[0]["maps"].astype(jnp.float32) / 255
            start = resize_bilinear(maps, edge.shape[1:3], align_corners=False)
        else:
            start = shares(predictions[0]["refined"], classes)
        scores = random_walk(start, edge, radius=self.walk.radius, beta=self.walk.beta, steps=self.walk.steps)
        height, width = (4 * side for side in edge.shape[1:3])
        scores = resize_bilinear(scores, (height, width), align_corners=False)[:, : self.size[0], : self.size[1]]
        axes = (1, 2) if self.walk.per_class else (1, 2, 3)
        scores /= jnp.maximum(scores.max(axes, keepdims=True), EPSILON)
        index = as_scores(scores, self.walk.threshold).argmax(-1)
        label = to_class_ids(index, classes, self.background)
        return {"label": label, "edge": jnp.round(255 * edge).astype(jnp.uint8)}
