"""Views of an image, and combining their predictions in an inference pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from annotated_types import Interval, MinLen

from scarce_jax.ops.crf import CRF
from scarce_jax.ops.resize import resize_bilinear
from scarce_jax.ranges import Pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """The views of an image whose predictions are averaged. The default is the plain image.

    Attributes:
      flip: also predict the image mirrored left to right.
      scales: factors of the size at which masks are predicted; the image is resized to each from its native size.
      window: (height, width) of windows that slide over the image at each scale, by two thirds of their size; where
        they overlap, their predictions are averaged. None predicts whole images.
      average: what is averaged over views: class probabilities, or logits as in the three-step paper's code.
      crf: refines the averaged probabilities at native size by the colours of the image (see `ops.crf`).
    """

    flip: bool = False
    scales: Annotated[tuple[Annotated[float, Interval(gt=0, lt=16)], ...], MinLen(1)] = (1.0,)
    window: tuple[Pixels, Pixels] | None = None
    crf: CRF | None = None
    average: Literal["probabilities", "logits"] = "probabilities"

    def faults(self) -> Iterator[tuple[str, str]]:
        if len(set(self.scales)) != len(self.scales):
            yield "scales", "different factors"

    @property
    def plain(self) -> bool:
        """Whether only the plain image is predicted."""
        return self == PLAIN


PLAIN = Views()


@dataclasses.dataclass(frozen=True)
class ViewMean:
    """Averages the predictions of an `Infer` over views; fields that are not listed are those of the first view.

    Maps of mirrored views are mirrored back, and all maps are resized bilinearly to the size of the first view's.

    Attributes:
      maps: fields float [B, h, w, ...] whose values are averaged, such as logits or class activation maps.
      softmaxed: fields of logits float [B, h, w, K] whose class probabilities are averaged.
      vectors: fields float [B, ...] without spatial axes, such as scores of image tags.
    """

    maps: tuple[str, ...] = ()
    softmaxed: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()

    def __call__(
        self, predictions: Sequence[Mapping[str, jax.Array]], mirrored: Sequence[bool]
    ) -> dict[str, jax.Array]:
        """Combines the predictions of all views of a batch.

        Args:
          predictions: {field: [B, ...]} of each view.
          mirrored: whether each view is mirrored.
        """
        fields = dict(predictions[0])
        for name in self.vectors:
            fields[name] = _mean([prediction[name] for prediction in predictions])
        for name in (*self.maps, *self.softmaxed):
            size = fields[name].shape[1:3]
            views = []
            for prediction, flipped in zip(predictions, mirrored, strict=True):
                values = prediction[name].astype(jnp.float32)
                values = jax.nn.softmax(values) if name in self.softmaxed else values
                values = values[:, :, ::-1] if flipped else values
                views.append(
                    values if values.shape[1:3] == size else resize_bilinear(values, size, align_corners=False)
                )
            fields[name] = _mean(views)
        return fields


def _mean(values: Sequence[jax.Array]) -> jax.Array:
    return sum(value.astype(jnp.float32) for value in values) / len(values)
