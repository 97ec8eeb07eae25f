"""Where the rows of a stage come from, and what earlier stages left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artifact:
    """What an earlier stage left: net `name` of a `Train`, or field `name` of an `Infer`'s records or mean."""

    stage: str
    name: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confident:
    """Inferred labels, used where they are confident enough and ignored elsewhere.

    Attributes:
      label, confidence: fields of records: class ids, and a confidence of 0..255.
      threshold: the least confidence, 0..1, at which a pixel counts: 0 keeps all, above 1 none. It is applied when the
        records are read, so another threshold infers nothing again.
    """

    label: Artifact
    confidence: Artifact
    threshold: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from: `{"image", "label", <fields>, "height", "width"}` per example.

    Attributes:
      dataset, split: a prepared dataset and one of its splits.
      ids: a role of the label budget ("fine", "coarse", "tags", "unlabelled"), "all" for the whole split, an Artifact
        whose record ids are taken, or a tuple of those: their union.
      take: only the first so many of them.
      fields: further fields of the example that a row carries: "coarse", "fine", "tags", or record fields.
      labels: in order of preference, what may stand in `label`: an example takes the first it has.
      having: fields that an example must have although its row does not carry them. Examples that lack one, a field of
        `fields` or every label are left out.
      batch: examples per step over all devices in training; per device in inference and evaluation.
      size: (height, width) to which the host resizes whole frames; None keeps them as they are, on a canvas that
        holds the largest.
      transform: `(row, key, consts) -> row`, pure, applied per row inside the compiled step.
      weight: `(tags [N, K] uint8) -> [N]` draws per epoch; None draws every example once.
      resident: overrides `Runtime.resident`.
    """

    dataset: str
    split: str
    ids: str | Artifact | tuple[str | Artifact, ...] = "all"
    take: int | None = None
    fields: tuple[str | Artifact, ...] = ()
    labels: tuple[str | Artifact | Confident, ...] = ()
    having: tuple[str, ...] = ()
    batch: int
    size: tuple[int, int] | None = None
    transform: Callable[[dict, jax.Array, Mapping], dict]
    weight: Callable[[np.ndarray], np.ndarray] | None = None
    resident: bool | None = None


def id_parts(source: Source) -> tuple[str | Artifact, ...]:
    """What a source's ids are the union of."""
    return source.ids if isinstance(source.ids, tuple) else (source.ids,)
