"""The sources of a stage, and the artifacts of earlier stages."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import flax.linen as nn
import jax
import numpy as np

from scarce_jax.data.images import Fit
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError, plural
from scarce_jax.ops.confidence import least_level


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artifact:
    """An output of an earlier stage: net `name` of a `Train`, or field `name` of the records or mean of an `Infer`."""

    stage: str
    name: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """The ids of the records whose scalar field is large enough. Another threshold does not repeat the inference.

    Attributes:
      artifact: the field of the records.
      at_least: smallest value that is chosen.
      flag: the config's field with that value, for messages.
    """

    artifact: Artifact
    at_least: float
    flag: str = ""

    def __str__(self) -> str:
        return f"{self.artifact} of {self.at_least:g} or more"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Read:
    """An array that is computed from an entry of records when a row is read.

    Changing `read` does not repeat the inference: it is part of the fingerprint of the stages that read, but not of the
    stage that inferred.

    Attributes:
      artifact: the records, and the field that messages name.
      read: `({field: array}) -> array`: a frozen dataclass with `__call__`, or a function of a module; or a
        `MostConfident`, which is fitted to the records when they are opened.
    """

    artifact: Artifact
    read: Callable[[Mapping[str, np.ndarray]], np.ndarray] | MostConfident

    def __str__(self) -> str:
        return f"{self.artifact} ({self.read})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confident:
    """Reads labels of sufficient confidence: `(entry) -> uint8 [H, W]`, IGNORE elsewhere.

    Attributes:
      label: field of class ids, uint8 [H, W].
      confidence: field of confidences 0..255, uint8 [H, W].
      threshold: smallest confidence of a label, 0..1; 0 takes all labels, above 1 none.
    """

    label: str = "label"
    confidence: str = "confidence"
    threshold: float

    def __call__(self, entry: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.where(entry[self.confidence] >= least_level(self.threshold), entry[self.label], np.uint8(IGNORE))

    def __str__(self) -> str:
        return f"where {self.confidence} is at least {self.threshold:g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MostConfident:
    """Reads an equal share of the labels of each class, those of largest confidence, and IGNORE elsewhere.

    Zou et al., 2018, "Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced Self-Training": each
    class has a threshold of its own, so the classes stay as frequent as they are without one.

    Attributes:
      label: field of class ids, uint8 [H, W].
      confidence: field of confidences 0..255, uint8 [H, W].
      share: share of the pixels of each class, above 0. More of them are read if the least confident are alike.
    """

    label: str = "label"
    confidence: str = "confidence"
    share: float

    def fitted(self, entries: Iterable[Mapping[str, np.ndarray]]) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
        """The function `(entry) -> uint8 [H, W]` with the thresholds that all `entries` together give the classes."""
        counts = np.zeros(256 * 256, np.int64)
        for entry in entries:
            pairs = entry[self.label].astype(np.int64) * 256 + entry[self.confidence]
            counts += np.bincount(pairs.ravel(), minlength=counts.size)
        # [class, level]: number of pixels of at least this confidence.
        reached = counts.reshape(256, 256)[:, ::-1].cumsum(1)[:, ::-1]
        enough = reached >= self.share * reached[:, :1]
        levels = tuple(int(level) for level in enough.sum(1) - 1)
        return AtLeast(label=self.label, confidence=self.confidence, levels=levels)

    def __str__(self) -> str:
        return f"of each class the most confident {self.share:.0%}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtLeast:
    """Reads labels whose confidence reaches the level of their class, and IGNORE elsewhere: `(entry) -> uint8 [H, W]`.

    Attributes:
      label: field of class ids, uint8 [H, W].
      confidence: field of confidences 0..255, uint8 [H, W].
      levels: 256 numbers, the least confidence of each id.
    """

    label: str
    confidence: str
    levels: tuple[int, ...]

    def __call__(self, entry: Mapping[str, np.ndarray]) -> np.ndarray:
        labels = entry[self.label]
        return np.where(entry[self.confidence] >= np.array(self.levels, np.uint8)[labels], labels, np.uint8(IGNORE))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One of the two parts into which examples are divided: the part that is held out, or all others.

    The hash of an example's id and the seed decides alone, so an example stays in its part whatever other examples
    there are, on every host and after every interruption. The share of N examples that is held out therefore differs
    from `share`, by about sqrt(share * (1 - share) / N).

    Attributes:
      share: share of the examples that is held out, above 0 and below 1.
      seed: another seed holds out other examples.
      held_out: whether this is the part that is held out.
    """

    share: float
    seed: int
    held_out: bool

    def __contains__(self, example_id: str) -> bool:
        # Not the hash by which a budget draws, so that the two choices are independent.
        digest = hashlib.sha256(f"held out:{self.seed}:{example_id}".encode()).digest()
        return (int.from_bytes(digest[:8]) < self.share * 2**64) == self.held_out

    def of(self, ids: tuple[str, ...], where: str) -> tuple[str, ...]:
        """Returns those of the ids that belong to the part.

        Raises:
          InputError: none does. The message begins with `where`.
        """
        members = tuple(name for name in ids if name in self)
        if ids and not members:
            amount, change = ("none", "raise") if self.held_out else ("all", "lower")
            raise InputError(
                f"{where}: held_out is {self.share:g}, which holds out {amount} of {plural(len(ids), 'image')}; "
                f"expected some, but not all; {change} it, or use more images"
            )
        return members

    def __str__(self) -> str:
        return f"{'' if self.held_out else 'without '}the held-out part of {self.share:.3g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    """Keeps the frozen features of a source's images, so that no step computes them again.

    Attributes:
      net: role of the net whose frozen part is applied to the images.
      module: its module, which has a frozen backbone.
      draws: number of augmented draws of each example. Each epoch takes one of them, in turn.
      fields: fields of a row that the net reads, "image" first.
    """

    net: str
    module: nn.Module
    draws: int
    fields: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The origin of rows `{"image", "label", <fields>, "height", "width"}`, one per example.

    Examples that lack one of `fields` or `having`, or all of `labels`, are left out.

    Attributes:
      dataset: a prepared dataset.
      split: one of its splits. None, for what measures, where the config names no split to measure.
      ids: a role of the label budget ("fine", "coarse", "tags", "unlabelled"); "all" for the whole split; an Artifact,
        for the ids of its records; `Chosen`, for some of these; or a tuple of these, for their union.
      part: use only the ids of this part; None uses all.
      take: use only the first `take` ids.
      fields: further fields of a row: "coarse", "fine", "tags", or fields of records.
      labels: what `label` may be, in order of preference: an example takes the first that it has.
      having: fields that an example must have, although rows do not include them.
      batch: examples per step over all devices in training; per device in inference and evaluation.
      size: (height, width) of the canvas to which whole images are brought on the host; None keeps native sizes, on a
        canvas that holds the largest.
      fit: how images are brought to `size`: resized to it, or with their proportions and padding (see `images.fitted`).
      interpolation: of what measures, how class probabilities are brought to the native size of an image. None brings
        logits there, bilinearly, unless the result's views average probabilities.
      transform: `(row, key, consts) -> row`, a pure function that is applied to each row inside the compiled step.
      weight: `(tags [N, K] uint8) -> [N]`, how often each example is drawn per epoch; None draws each once.
      resident: overrides `Runtime.resident`.
      cache: keep frozen features of the images, in training.
    """

    dataset: str
    split: str | None
    ids: str | Artifact | Chosen | tuple[str | Artifact | Chosen, ...] = "all"
    part: Part | None = None
    take: int | None = None
    fields: tuple[str | Artifact, ...] = ()
    labels: tuple[str | Artifact | Read, ...] = ()
    having: tuple[str, ...] = ()
    batch: int
    size: tuple[int, int] | None = None
    fit: Fit = "stretch"
    interpolation: Literal["bilinear", "bicubic"] | None = None
    transform: Callable[[dict, jax.Array, Mapping], dict]
    weight: Callable[[np.ndarray], np.ndarray] | None = None
    resident: bool | None = None
    cache: Cache | None = None

    @property
    def id_parts(self) -> tuple[str | Artifact | Chosen, ...]:
        """The parts whose union are the ids."""
        return self.ids if isinstance(self.ids, tuple) else (self.ids,)

    @property
    def ids_in_words(self) -> str:
        """The ids as they are named in messages and in DONE."""

        def words(part: str | Artifact | Chosen) -> str:
            if isinstance(part, Chosen):
                return f"{part.artifact.stage} records with {part.artifact.name} of {part.at_least:g} or more"
            return part if isinstance(part, str) else f"{part.stage} records"

        ids = " and ".join(map(words, self.id_parts))
        return ids if self.part is None else f"{ids}, {self.part}"
