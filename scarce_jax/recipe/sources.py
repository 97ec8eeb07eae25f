"""Where the rows of a stage come from, and what earlier stages left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from scarce_jax.data.schema import IGNORE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artifact:
    """What an earlier stage left: net `name` of a `Train`, or field `name` of an `Infer`'s records or mean."""

    stage: str
    name: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Read:
    """An array made of a whole entry of records when a row is read, so that another `read` infers nothing again.

    Attributes:
      artifact: the records, and the field after which the array is named in messages.
      read: `(entry) -> array`, with an entry's arrays by field; a frozen dataclass with `__call__`, or a function of a
        module. It is part of the fingerprint of the stages that read, and not of the one that inferred.
    """

    artifact: Artifact
    read: Callable[[Mapping[str, np.ndarray]], np.ndarray]

    def __str__(self) -> str:
        return f"{self.artifact} ({self.read})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confident:
    """The reader of labels where they are confident enough: `(entry) -> uint8 [H, W]`, IGNORE elsewhere.

    Attributes:
      label, confidence: fields of an entry, uint8 [H, W]: class ids, and a confidence of 0..255.
      threshold: the least confidence, 0..1, at which a pixel counts: 0 takes all, above 1 none.
    """

    label: str = "label"
    confidence: str = "confidence"
    threshold: float

    def __call__(self, entry: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.where(entry[self.confidence] >= 255 * self.threshold, entry[self.label], np.uint8(IGNORE))

    def __str__(self) -> str:
        return f"where {self.confidence} is at least {self.threshold:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from: `{"image", "label", <fields>, "height", "width"}` per example.

    Attributes:
      dataset, split: a prepared dataset and one of its splits.
      ids: a role of the label budget ("fine", "coarse", "tags", "unlabelled"), "all" for the whole split, an Artifact
        whose record ids are taken, or a tuple of those: their union.
      take: only the first so many of them.
      fields: further fields of the example that a row carries: "coarse", "fine", "tags", or fields of records.
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
    labels: tuple[str | Artifact | Read, ...] = ()
    having: tuple[str, ...] = ()
    batch: int
    size: tuple[int, int] | None = None
    transform: Callable[[dict, jax.Array, Mapping], dict]
    weight: Callable[[np.ndarray], np.ndarray] | None = None
    resident: bool | None = None


def id_parts(source: Source) -> tuple[str | Artifact, ...]:
    """What a source's ids are the union of."""
    return source.ids if isinstance(source.ids, tuple) else (source.ids,)
