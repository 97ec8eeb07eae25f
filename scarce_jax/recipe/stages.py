"""The types a method is made of: a recipe is a tuple of stages, and one runner executes any recipe.

A method turns its config into a `Recipe` of `Train` and `Infer` stages and of named `Eval` results. Everything here is
a frozen dataclass of values and pure functions; nothing here runs anything.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import numpy as np

from scarce_jax.evaluation.confusion import group_figure
from scarce_jax.optim import Optimizer
from scarce_jax.recipe.origins import FromRun, Pretrained
from scarce_jax.recipe.sources import Artifact, Confident, Source, id_parts
from scarce_jax.recipe.views import PLAIN, Views

PyTree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """One network of a stage.

    Attributes:
      module: Flax module called as `module(*inputs, train=...)`; its repr must be made of plain values.
      inputs: abstract inputs that initialise it (batch 1 is enough).
      optim: its optimizer, None where the net is frozen (then it has no optimizer state and is not stored again).
      init_from: what to start from: a net of an earlier stage, or for a trained net one of another run, or weights from
        a file. None draws initial values.
    """

    module: nn.Module
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    optim: Optimizer | None = None
    init_from: Artifact | FromRun | Pretrained | None = None

    def __post_init__(self):
        if isinstance(self.init_from, FromRun | Pretrained) and self.optim is None:
            # A frozen net is not stored, and a run folder must hold all that its results need.
            raise ValueError(f"a net that starts from {self.init_from} must be trained; give it an optimizer")


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
    """

    metrics: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    stats: dict[str, PyTree] = flax.struct.field(default_factory=dict)
    share: dict[str, PyTree] = flax.struct.field(default_factory=dict)


Loss = Callable[[PyTree, Mapping[str, NetState], dict, dict, jax.Array], tuple[jax.Array, Out]]


def interned(factory: Callable[..., Callable]) -> Callable[..., Callable]:
    """Makes a factory of losses, predictions or transforms return the same function for equal arguments.

    Stages that differ in their data alone, as those that are compared do, then share one compiled program. A function
    made of arguments that cannot be hashed is new each time.
    """
    known = functools.lru_cache(maxsize=64, typed=True)(factory)

    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Callable:
        try:
            hash((args, *kwargs.values()))
        except TypeError:
            return factory(*args, **kwargs)
        return known(*args, **kwargs)

    return make


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """Differentiate `loss(params, nets, batch, shared, key)` by this net's params, and update only this net.

    `shared` holds the stage's consts, what earlier turns of the step share, and the number of the step as "step".
    Stages whose turns and transforms are the same functions (see `interned`) share their compiled step.
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
      given: a mask of records that is measured in place of a prediction; then `predict` is None.
      hidden_truth: look at the truth also where the budget does not grant it, to learn how good inferred labels are.
        For results alone: no stage may depend on it.
      groups: name -> class ids; the mean IoU over each group is the figure `miou_<name>`.
      views: mirrored, scaled and windowed predictions to average.
      maps: `(nets, batch, consts) -> float [B, h, w, K]`, 0 to 1: what speaks for each class where, for people to look
        at; nothing follows from it.
      every: steps between measurements in training, besides the one after the last step; 0 measures there alone.
      keep_best: metric whose best measurement gives the stage's result; None keeps the last step.
      consts: as in `Train`.
    """

    name: str
    nets: Mapping[str, Net] = dataclasses.field(default_factory=dict)
    predict: Callable[[Mapping[str, NetState], dict, Mapping], jax.Array] | None
    source: Source
    metrics: Literal["masks", "tags"] = "masks"
    composite: bool = False
    given: Artifact | None = None
    hidden_truth: bool = False
    groups: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    views: Views = PLAIN
    maps: Callable[[Mapping[str, NetState], dict, Mapping], jax.Array] | None = None
    every: int = 0
    keep_best: str | None = None
    consts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
      settings: the values the stage was built from; part of its fingerprint.
      steps: optimizer steps.
      consts: arrays, or Artifacts of `Mean` stages; the initial content of `shared`, and given to `transform`.
      keys_as: draw initial values, order and augmentation as the stage of this name does, so that two stages can be
        compared on the same draws.
    """

    name: str
    nets: Mapping[str, Net]
    turns: tuple[Turn, ...]
    sources: Mapping[str, Source]
    steps: int | Epochs
    settings: Any
    evals: tuple[Eval, ...] = ()
    consts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keys_as: str | None = None

    def __post_init__(self):
        # What is kept may depend on a stage's own measurements.
        if any(item.hidden_truth for item in self.evals):
            raise ValueError(f"stage {self.name}: an eval looks at hidden truth, which only results may")


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
      write: `Records` or `Mean`.
      status: what the values 0, 1, ... of the records' field "status" mean; DONE and the summary then say how many
        examples have which. Empty where the records have no such field.
    """

    name: str
    nets: Mapping[str, Net]
    predict: Callable[[Mapping[str, NetState], dict, Mapping], dict]
    source: Source
    settings: Any
    finish: Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    write: Records | Mean = Records()
    status: tuple[str, ...] = ()
    consts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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


def sources(stage: Stage | Eval) -> dict[str, Source]:
    """The stage's sources by name; a stage with one source calls it by its own name."""
    return dict(stage.sources) if isinstance(stage, Train) else {stage.name: stage.source}


def reads(stage: Stage | Eval) -> list[Artifact]:
    """Every artifact of an earlier stage that this one needs, without repeats, in a fixed order."""
    found = [net.init_from for net in stage.nets.values() if isinstance(net.init_from, Artifact)]
    for source in sources(stage).values():
        for item in (*id_parts(source), *source.fields, *source.labels):
            if isinstance(item, Confident):
                found += [item.label, item.confidence]
            elif isinstance(item, Artifact):
                found.append(item)
    found += [value for value in stage.consts.values() if isinstance(value, Artifact)]
    if isinstance(stage, Eval) and stage.given is not None:
        found.append(stage.given)
    return list(dict.fromkeys(found))
