"""What the P-Net is shown: an image times the mask of one category."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE
from scarce_jax.losses import class_counts
from scarce_jax.methods.inputs import net_inputs
from scarce_jax.models.pnet import PNet
from scarce_jax.ops.logits import Logits, full_size
from scarce_jax.ops.resize import resize_bilinear, sample_nearest

Mask = Literal["soft", "hard", "scaled"]

LEAST_TRUE = 0.9
"""Least probability of the true class in "scaled" true masks (Luc et al., 2016, tau)."""


@flax.struct.dataclass
class CategoryMasks:
    """Masks of N categories of each image, at the P-Net's size.

    Attributes:
      image: float [B, H, W, 3], normalised.
      label: uint8 [B, H, W], class ids or 255.
      logits: float32 [B, H, W, K].
      categories: integer [B, N], their ids.
      labelled: float32 [B, N], weights of the true masks: 1 if the label has the category, else 0.
      shown: float32 [B, N], weights of the predicted masks.
    """

    image: jax.Array
    label: jax.Array
    logits: jax.Array
    categories: jax.Array
    labelled: jax.Array
    shown: jax.Array

    def true(self) -> jax.Array:
        """True masks, bool [B, N, H, W]."""
        return self._where(self.label)

    def soft(self) -> jax.Array:
        """Predicted probabilities of the categories, float32 [B, N, H, W]."""
        # A product, because the gradient of a gather would be a scatter.
        which = jax.nn.one_hot(self.categories, self.logits.shape[-1])
        precision = jax.lax.Precision.HIGHEST
        return jnp.einsum("bhwk,bnk->bnhw", jax.nn.softmax(self.logits), which, precision=precision)

    def scaled(self) -> jax.Array:
        """True masks as soft as the predicted ones, float32 [B, N, H, W] (Luc et al., 2016, "scaling").

        The true class of a pixel has its predicted probability, but at least `LEAST_TRUE`. The other classes share the
        rest as predicted.
        """
        probabilities = jax.lax.stop_gradient(jax.nn.softmax(self.logits))
        label = jnp.where(self.label == IGNORE, 0, self.label).astype(jnp.int32)[..., None]
        predicted = jnp.take_along_axis(probabilities, label, -1)[..., 0][:, None]  # [B, 1, H, W]
        kept = jnp.maximum(predicted, LEAST_TRUE)
        others = jnp.where(predicted < LEAST_TRUE, (1 - kept) / (1 - jnp.minimum(predicted, LEAST_TRUE)), 1.0)
        return jnp.where(self.true(), kept, jax.lax.stop_gradient(self.soft()) * others)

    def hard(self) -> jax.Array:
        """Predicted masks, float32 [B, N, H, W], 0 or 1, with the gradient of `soft` (straight through)."""
        soft = self.soft()
        return self._where(self.logits.argmax(-1)) + (soft - jax.lax.stop_gradient(soft))

    def mismatched(self, shown: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """True masks of the image before each one in the batch, [B, N, H, W], and their weights, float32 [B, N].

        A mask that equals the true one of its new image has no weight.

        Args:
          shown: the true masks as the P-Net is shown them; default `true`.
        """
        true = self.true()
        weights = jnp.roll(self.labelled, 1, axis=0) * (jnp.roll(true, 1, axis=0) != true).any((2, 3))
        return jnp.roll(true if shown is None else shown, 1, axis=0), weights

    def _where(self, classes: jax.Array) -> jax.Array:
        return classes[:, None] == self.categories[:, :, None, None]


@dataclasses.dataclass(frozen=True)
class PNetJudge:
    """The P-Net and its inputs.

    Attributes:
      size: (height, width) of its inputs.
      number: largest number of categories of an image.
      background: id of the class that gives no sample.
      mask: which masks it is shown.
      mismatched: whether true masks of other images are also fakes in its loss.
      false_positives: whether it is shown categories that are predicted, but not in the label.
    """

    module: PNet
    size: tuple[int, int]
    number: int
    background: int
    mask: Mask = "soft"
    mismatched: bool = False
    false_positives: bool = False

    @property
    def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Abstract inputs of the P-Net."""
        return net_inputs(self.size)

    def masks(self, images: jax.Array, labels: jax.Array, logits: Logits) -> CategoryMasks:
        """Chooses the categories with most pixels; those of the prediction count where the label has none.

        Args:
          images: float [B, H, W, 3], normalised.
          labels: uint8 [B, H, W], class ids or 255.
          logits: floating [B, h, w, K].
        """
        labels = sample_nearest(labels, self.size)
        logits = resize_bilinear(full_size(logits), self.size, align_corners=True)
        classes = logits.shape[-1]
        in_label = class_counts(labels, classes)  # [B, K]
        pixels = in_label
        if self.false_positives:
            predicted = jnp.where(labels == IGNORE, IGNORE, logits.argmax(-1))
            pixels = jnp.where(in_label > 0, in_label, class_counts(predicted, classes))
        pixels, categories = jax.lax.top_k(pixels.at[:, self.background].set(-1), min(self.number, classes - 1))
        return CategoryMasks(
            image=resize_bilinear(images, self.size, align_corners=True),
            label=labels,
            logits=logits,
            categories=categories,
            labelled=(jnp.take_along_axis(in_label, categories, 1) > 0).astype(jnp.float32),
            shown=(pixels > 0).astype(jnp.float32),
        )

    def true(self, masks: CategoryMasks) -> jax.Array:
        """The true masks that the P-Net learns from, bool or float32 [B, N, H, W]."""
        return masks.scaled() if self.mask == "scaled" else masks.true()

    def predicted(self, masks: CategoryMasks) -> jax.Array:
        """The predicted masks that the P-Net is shown, float32 [B, N, H, W]."""
        return masks.hard() if self.mask == "hard" else masks.soft()

    def __call__(self, variables: Mapping, masks: CategoryMasks, *judged: jax.Array) -> list[jax.Array]:
        """Judges masks of the images.

        Void pixels are shown as zero. Otherwise they would reveal which masks are predicted.

        Args:
          variables: of the P-Net.
          masks: the images and their void pixels.
          judged: masks [B, N, H, W].

        Returns:
          Logits float32 [B, N] of each array in `judged`.
        """
        image = jnp.where((masks.label == IGNORE)[..., None], 0, masks.image)[:, None]  # [B, 1, H, W, 3]
        samples = jnp.concatenate([(image * mask[..., None]).reshape(-1, *masks.image.shape[1:]) for mask in judged])
        logits = self.module.apply(variables, samples, train=True)
        return [x.reshape(mask.shape[:2]) for x, mask in zip(jnp.split(logits, len(judged)), judged, strict=True)]
