"""The types a method is made of: a recipe is a tuple of stages, and one runner executes any recipe.

A method turns its config into a `Recipe` of `Train` and `Infer` stages and of named `Eval` results. Everything here is
a frozen dataclass of values and pure functions; nothing here runs anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import numpy as np

from scarce_jax.data.figures import group_figure
from scarce_jax.errors import InputError
from scarce_jax.optim import Optimizer
from scarce_jax.recipe.origins import FromRun, Pretrained
from scarce_jax.recipe.sources import Artifact, Read, Source, id_parts
from scarce_jax.recipe.views import PLAIN, Views

PyTree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """One network of a stage.

    Attributes:
      module: Flax module called as `module(*inputs, train=...)`, whose fields are plain values or modules.
      inputs: abstract inputs that initialise it (batch 1 is enough).
      optim: its optimizer; None freezes the net, which then has no optimizer state. A frozen net of an earlier stage is
        not stored again.
      init_from: what to start from: a net of an earlier stage, a net of another run, or weights from a file. None draws
        initial values.
    """

    module: nn.Module
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    optim: Optimizer | None = None
    init_from: Artifact | FromRun | Pretrained | None = None


@flax.struct.dataclass
class NetState:
    """One net's arrays. `stats` is Flax's batch_stats ({} if it has none), `opt` is () for a frozen net."""

    params: PyTree
    stats: PyTree
    opt: PyTree = ()

    @property
    def variables(self) -> dict[str, PyTree]:
        return {"params": self.params, "batch_stats": self.stats}


@flax.struct.dataclass
class Out:
    """What a loss returns beside its scalar.

    Attributes:
      metrics: name -> scalar, logged as `<net>/<name>`.
      stats: net -> its new batch_stats.
      share: arrays the later turns of the same step may read; gradients are stopped by the step.
      weight: float32 scalar, the count (of pixels, say) over which the loss is a mean. Where a step's batch is cut into
        parts (`Train.accumulate`), parts count by it; None counts them alike.
    """

    metrics: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    stats: dict[str, PyTree] = flax.struct.field(default_factory=dict)
    share: dict[str, PyTree] = flax.struct.field(default_factory=dict)
    weight: jax.Array | None = None


Loss = Callable[[PyTree, Mapping[str, NetState], dict, dict, jax.Array], tuple[jax.Array, Out]]
Predict = Callable[[Mapping[str, NetState], dict, Mapping], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """Differentiate `loss(params, nets, batch, shared, key)` by this net's params, and update only this net.

    `shared` holds the stage's consts, what earlier turns of the step share, and the number of the step as "step".
    Losses are frozen dataclasses with `__call__`, or functions of a module: what they are made of is part of the
    stage's fingerprint, and stages with equal turns, optimizers and transforms share their compiled step.
    """

    net: str
    loss: Loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval:
    """A measurement of predicted masks against the truth at its native size, or of predicted image tags.

    Attributes:
      metrics: what is measured. "tags" needs the field "tags" and no `labels`, and takes logits [B, K], or [B, K - 1]
        without the background.
      nets: role -> net restored for it; empty in `Train.evals`, which measure the stage's own nets.
      predict: `(nets, batch, consts) -> scores [B, h, w, K]`, the largest wins; None predicts nothing (255).
      source: what is measured; `labels` is the truth.
      composite: keep the coarse label wherever there is one (the paper's composite model, detailer section 5).
      inferred: masks of records that are measured in place of a prediction; then `predict` is None.
      hidden_truth: look at the truth also where the budget does not grant it, to learn how good inferred labels are.
        For results alone: no stage may depend on it.
      groups: name -> class ids; the mean IoU over each group is the figure `miou_<name>`.
      views: mirrored, scaled and windowed predictions to average.
      maps: `(nets, batch, consts) -> float [B, h, w, K]`, 0 to 1: what speaks for each class where, for people to look
        at; nothing follows from it.
      every: steps between measurements in training, besides the one after the last step; 0 measures there alone.
      keep_best: metric whose best measurement gives the stage's result; None keeps the last step.
      patience: measurements without a better one after which training stops early; needs `keep_best` and `every`.
      consts: as in `Train`.
    """

    name: str
    nets: Mapping[str, Net] = dataclasses.field(default_factory=dict)
    predict: Callable[[Mapping[str, NetState], dict, Mapping], jax.Array] | None
    source: Source
    metrics: Literal["masks", "tags"] = "masks"
    composite: bool = False
    inferred: Artifact | None = None
    hidden_truth: bool = False
    groups: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    views: Views = PLAIN
    maps: Callable[[Mapping[str, NetState], dict, Mapping], jax.Array] | None = None
    every: int = 0
    keep_best: str | None = None
    patience: int | None = None
    consts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check_origins(self)
        if self.patience is not None and not (self.keep_best and self.every and self.patience > 0):
            raise ValueError(f"eval {self.name}: patience is {self.patience}; expected at least 1, keep_best and every")
        if self.keep_best is not None and self.keep_best not in self.figures:
            raise InputError(
                f"keep_best is {self.keep_best!r}; expected one of {', '.join(self.figures)}, which are measured here"
            )

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures that sum the measurement up, the foremost first."""
        if self.metrics == "tags":
            return "map", "mean_f1"
        return "miou", *map(group_figure, self.groups), "mean_accuracy", "pixel_accuracy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epochs:
    """A number of steps given as passes over a stage's first source; resolved when its size is known.

    Attributes:
      of: the stage; None is the one whose steps these are.
    """

    count: float
    of: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """A training stage: all turns compile into one step; it leaves one Orbax item per trained net.

    Attributes:
      steps: optimizer steps.
      accumulate: equal parts into which a step's batch is cut; the nets see one after the other, and the gradient is
        that of all. It saves memory; batch statistics are then those of a part.
      consts: arrays, or Artifacts of `Mean` stages; the initial content of `shared`, and given to `transform`.
      keys_as: draw initial values, order and augmentation as the stage of this name does, so that two stages can be
        compared on the same draws.
    """

    name: str
    nets: Mapping[str, Net]
    turns: tuple[Turn, ...]
    sources: Mapping[str, Source]
    steps: int | Epochs
    accumulate: int = 1
    evals: tuple[Eval, ...] = ()
    consts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keys_as: str | None = None

    def __post_init__(self):
        # What is kept may depend on a stage's own measurements.
        if any(evaluation.hidden_truth for evaluation in self.evals):
            raise ValueError(f"stage {self.name}: an eval looks at hidden truth, which only results may")
        for name, source in self.sources.items():
            if self.accumulate < 1 or source.batch % self.accumulate:
                raise InputError(
                    f"{self.name}.accumulate is {self.accumulate}; expected a divisor of the batch of {name}, "
                    f"{source.batch}"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """One entry per example id: the arrays that `predict` (and `finish`) gave for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean over all examples of what `predict` gave; with `into`, it replaces that net's batch_stats."""

    into: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infer:
    """One pass over data.

    Attributes:
      predict: `(nets, batch, consts) -> {field: [B, ...]}`, jitted.
      finish: `(id, {field: array}) -> {field: array}`, run per example in worker processes without JAX.
      views: mirrored and scaled images that are predicted as well; `predict` then runs once for each scale, and once
        more for its mirror. Windows and a CRF are for results alone.
      combine: `([{field: [B, ...]} of each view], [whether it is mirrored]) -> {field: [B, ...]}`, such as `ViewMean`;
        needed where the views are not plain.
      write: `Records` or `Mean`.
      status: what the values 0, 1, ... of the records' field "status" mean; DONE and the summary then say how many
        examples have which. Empty where the records have no such field.
      per_batch: whether `predict` looks across the examples of a batch (batch statistics), so that the batch size
        decides what the stage leaves.
      consts: as in `Train`.
    """

    name: str
    nets: Mapping[str, Net]
    predict: Callable[[Mapping[str, NetState], dict, Mapping], dict]
    source: Source
    finish: Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    views: Views = PLAIN
    combine: Callable[[Sequence[Mapping[str, jax.Array]], Sequence[bool]], dict[str, jax.Array]] | None = None
    write: Records | Mean = Records()
    status: tuple[str, ...] = ()
    per_batch: bool = False
    consts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check_origins(self)
        if self.views.window is not None or self.views.crf is not None:
            raise ValueError(f"stage {self.name}: views with a window or a CRF; a pass takes flip and scales")
        if not self.views.plain and (self.combine is None or self.source.size is None):
            raise ValueError(f"stage {self.name}: several views need `combine` and a source with a size")


Stage = Train | Infer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of summary.json, made on the host from what stages left.

    Attributes:
      reads: name -> an Artifact of a `Mean`.
      make: `({name: array}) -> {"columns": [...], "rows": [[...], ...]}` of JSON values, and what else it tells.
    """

    reads: Mapping[str, Artifact]
    make: Callable[[Mapping[str, np.ndarray]], dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a method's `recipe(config, info)` returns; the first result is the default of every command."""

    stages: tuple[Stage, ...]
    results: Mapping[str, Eval]
    tables: Mapping[str, Table] = dataclasses.field(default_factory=dict)

    def stage(self, name: str) -> Stage:
        return {stage.name: stage for stage in self.stages}[name]


def _check_origins(stage: Infer | Eval) -> None:
    """A run folder must hold all that its results need, and only a `Train` stores what comes from outside."""
    for role, net in stage.nets.items():
        if not isinstance(net.init_from, Artifact):
            raise ValueError(
                f"{stage.name}: net {role} starts from {net.init_from}; expected a net of an earlier stage"
            )


def sources(stage: Stage | Eval) -> dict[str, Source]:
    """The stage's sources by name; a stage with one source calls it by its own name."""
    return dict(stage.sources) if isinstance(stage, Train) else {stage.name: stage.source}


def reads(stage: Stage | Eval) -> list[Artifact]:
    """Every artifact of an earlier stage that this one needs, without repeats, in a fixed order."""
    artifacts = [net.init_from for net in stage.nets.values() if isinstance(net.init_from, Artifact)]
    for source in sources(stage).values():
        for field in (*id_parts(source), *source.fields, *source.labels):
            if isinstance(field, Read):
                artifacts.append(field.artifact)
            elif isinstance(field, Artifact):
                artifacts.append(field)
    artifacts += [value for value in stage.consts.values() if isinstance(value, Artifact)]
    if isinstance(stage, Eval) and stage.inferred is not None:
        artifacts.append(stage.inferred)
    return list(dict.fromkeys(artifacts))
