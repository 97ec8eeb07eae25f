"""Class activation maps of images, and the labels that they give IRNet (three-step paper, sections 3.1 and 3.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE
from scarce_jax.methods.tagging import CLASSIFIER
from scarce_jax.ops.crf import CRF, PARAMETERS, refine_labels
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.ranges import Few, Share
from scarce_jax.recipe import NetState, Views

STATUS = ("all classes", "likeliest classes alone")
"""What the records' field "status" says: whether an image has more classes than maps are kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cams:
    """How class activation maps become labels.

    Attributes:
      views: the views whose maps are added; the paper's scales are 1, 0.5, 1.5 and 2, each mirrored too. The sides of
        a view should be multiples of the stride of the maps, else maps of views lie up to a stride apart.
      most: maps kept per image, those of its likeliest classes; the records say how many images have more classes.
      confidence: images get labels, and go on to IRNet and the segmenter, whose tags all have at least this
        probability, 0..1; those without tags never do. 0.8 in the paper.
      foreground: a pixel is surely an object if its largest map is above this, after the CRF. 0.3 in the code of
        IRNet's authors.
      background: a pixel is surely background if no map is above this, after the CRF. 0.05 in the same code.
      crf: the CRF, at the size of IRNet's images.
    """

    views: Views = Views(flip=True, scales=(1.0, 0.5, 1.5, 2.0))
    most: Few = 8
    confidence: Share = 0.8
    foreground: Share = 0.3
    background: Share = 0.05
    crf: CRF = PARAMETERS["irn"]

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.views.window is not None or self.views.crf is not None or self.views.average != Views().average:
            yield "views", "scales and flip alone, because maps of whole images are added"
        if self.background > self.foreground:
            yield "background", f"at most cams.foreground, {self.foreground}"


@dataclasses.dataclass(frozen=True)
class ClassMaps:
    """Prediction of one view: "maps" float32 [B, h, w, K - 1], at least 0, "logits" [B, K - 1], and "tags" if given."""

    classifier: nn.Module

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        variables = nets[CLASSIFIER].variables
        maps = self.classifier.apply(variables, batch["image"], method="class_activation_maps")
        logits = self.classifier.apply(variables, batch["image"], train=False)
        tags = {"tags": batch["tags"]} if "tags" in batch else {}
        return {"maps": jax.nn.relu(maps), "logits": logits.astype(jnp.float32), **tags}


def added_maps(
    predictions: Sequence[Mapping[str, jax.Array]], mirrored: Sequence[bool], size: tuple[int, int]
) -> jax.Array:
    """The sum of the maps of all views of images of a size, at a quarter of it: float32 [B, H/4, W/4, K - 1]."""
    quarter = tuple(-(-side // 4) for side in size)
    total = 0.0
    for view, flipped in zip(predictions, mirrored, strict=True):
        maps = view["maps"][:, :, ::-1] if flipped else view["maps"]
        total += resize_bilinear(maps, quarter, align_corners=False)
    return total


@dataclasses.dataclass(frozen=True)
class CompactMaps:
    """Combines the maps of all views, and keeps those of each image's classes at a quarter of its size.

    The maps of all views are added, and each class's sum is divided by its largest value.

    Attributes:
      size: (height, width) of the images.
      background: class without a map.
      most: maps kept.
    """

    size: tuple[int, int]
    background: int
    most: int

    def __call__(
        self, predictions: Sequence[Mapping[str, jax.Array]], mirrored: Sequence[bool]
    ) -> dict[str, jax.Array]:
        """Combines the predictions of `ClassMaps`.

        An image has the classes of its "tags" where they are given, else those of probability above 0.5, or the
        likeliest one.

        Returns:
          "maps" uint8 [B, H/4, W/4, M], 255 being 1; "classes" uint8 [B, M], class ids, 255 where there are fewer than
          M; "confidence" float32 [B], the least probability of a class of the image, -1 without any; "status" uint8
          [B].
        """
        total = added_maps(predictions, mirrored, self.size)  # [B, h, w, K - 1]
        scores = sum(jax.nn.sigmoid(view["logits"]) for view in predictions) / len(predictions)
        likeliest = jax.nn.one_hot(scores.argmax(-1), scores.shape[-1]) > 0
        present = jnp.where((scores > 0.5).any(-1, keepdims=True), scores > 0.5, likeliest)
        if "tags" in predictions[0]:
            present = jnp.delete(predictions[0]["tags"], self.background, axis=-1) > 0
        slots = min(self.most, scores.shape[-1])
        ranked, chosen = jax.lax.top_k(jnp.where(present, scores, -1.0), slots)  # [B, M]
        maps = jnp.take_along_axis(total, chosen[:, None, None], axis=-1)
        maps /= jnp.maximum(maps.max((1, 2), keepdims=True), 1e-5)
        maps = jnp.where((ranked >= 0)[:, None, None], maps, 0.0)
        classes = chosen + (chosen >= self.background)
        least = jnp.where(present, scores, 1.0).min(-1)
        return {
            "maps": jnp.round(255 * maps).astype(jnp.uint8),
            "classes": jnp.where(ranked >= 0, classes, IGNORE).astype(jnp.uint8),
            "confidence": jnp.where(present.any(-1), least, -1.0),
            "status": (present.sum(-1) > slots).astype(jnp.uint8),
        }


def as_scores(maps: jax.Array, threshold: float) -> jax.Array:
    """Maps [..., M] with that of the background, `threshold` everywhere, before them: [..., 1 + M]."""
    return jnp.concatenate((jnp.full((*maps.shape[:-1], 1), threshold, maps.dtype), maps), -1)


def to_class_ids(index: jax.Array, classes: jax.Array, background: int) -> jax.Array:
    """Class ids uint8 [B, H, W] of integers [B, H, W]: 0 is the background, m the image's class m - 1, 255 is kept.

    Args:
      classes: uint8 [B, M], as of `CompactMaps`.
    """
    first = jnp.full((len(classes), 1), background, jnp.uint8)
    ids = jnp.concatenate((first, classes), -1)
    chosen = jax.vmap(lambda table, at: jnp.take(table, at, mode="clip"))(ids, index)
    return jnp.where(index == IGNORE, jnp.uint8(IGNORE), chosen)


@dataclasses.dataclass(frozen=True)
class RefinedLabels:
    """Labels from maps and the colours of the image: an inference pass over rows with "maps" and "classes".

    Attributes:
      background: class.
      outputs: "refined", class ids, where the largest map above `cams.foreground` labels each pixel before the CRF;
        "sure", the same with 255 where a pixel is neither surely object nor surely background.
    """

    cams: Cams
    background: int
    outputs: tuple[Literal["refined", "sure"], ...]

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        """The `outputs`, uint8 [B, H, W]."""
        image, classes = batch["image"], batch["classes"]
        maps = resize_bilinear(batch["maps"].astype(jnp.float32) / 255, image.shape[1:3], align_corners=False)
        present = jnp.concatenate((jnp.ones((len(classes), 1), bool), classes != IGNORE), -1)

        def refined(threshold: float) -> jax.Array:
            """int32 [B, H, W], 0 for the background."""
            labels = as_scores(maps, threshold).argmax(-1)

            def refine(row: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
                labels, image, present = (x[None] for x in row)
                # Made of the image, so that it belongs to the device that holds it.
                valid = image[..., 0] >= 0
                return refine_labels(labels, image, self.cams.crf, present.shape[-1], present=present, valid=valid)[0]

            # One image at a time: the lattice of one takes more memory than its scores.
            return jax.lax.map(refine, (labels, image, present))

        labels = {"refined": refined(self.cams.foreground)}
        if "sure" in self.outputs:
            known = (labels["refined"] > 0) | (refined(self.cams.background) == 0)
            labels["sure"] = jnp.where(known, labels["refined"], IGNORE)
        return {name: to_class_ids(labels[name], classes, self.background) for name in self.outputs}
