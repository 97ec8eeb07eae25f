"""The types a method is made of: a recipe is a tuple of stages, and one runner executes any recipe.

A method turns its config into a `Recipe` of `Train` and `Infer` stages and of named `Eval` results. Everything here is
a frozen dataclass of values and pure functions; nothing here runs anything.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import numpy as np

from scarce_jax.errors import InputError
from scarce_jax.evaluation.confusion import group_figure
from scarce_jax.evaluation.views import PLAIN, Views
from scarce_jax.models.weights import HUB, SUFFIXES
from scarce_jax.training.optim import Optimizer

PyTree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """How a run is carried out; none of it changes what is computed, so none of it is in a fingerprint.

    Attributes:
      checkpoint_every: steps between mid-stage checkpoints.
      log_every: steps between lines in metrics.jsonl, TensorBoard and on the terminal.
      workers: decoding threads, and processes for the host work of an `Infer` stage.
      resident: keep decoded examples in device memory. None: when they fit (see `data.source`).
      deterministic: ask XLA for deterministic GPU kernels, so that resuming is bit-identical there too.
      steps_per_dispatch: training steps that one program carries out, where all sources are resident and nothing is
        due between (a divisor of `log_every` and `checkpoint_every` suits); it saves time for small nets on a GPU.
        On a CPU it counts as 1.
    """

    checkpoint_every: int = 500
    log_every: int = 20
    workers: int = 2
    resident: bool | None = None
    deterministic: bool = False
    steps_per_dispatch: int = 1

    def __post_init__(self):
        for name in ("checkpoint_every", "log_every", "steps_per_dispatch"):
            if getattr(self, name) < 1:
                raise InputError(f"runtime.{name} is {getattr(self, name)}; expected at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artifact:
    """What an earlier stage left: net `name` of a `Train`, or field `name` of an `Infer`'s records or mean."""

    stage: str
    name: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromRun:
    """A net that another run left, as written in a config: "RUN:STAGE/NET" or "RUN:STAGE/NET#PATTERN".

    Attributes:
      run: its folder.
      pattern: regular expression over our parameter paths ("backbone/layer1_block0/conv1/kernel"): every array that it
        finds is taken, and must be there in the same shape. None: every array of equal path and shape is taken.
    """

    run: str
    stage: str
    net: str
    pattern: str | None = None

    def __str__(self) -> str:
        pattern = "" if self.pattern is None else f"#{self.pattern}"
        return f"{self.run}:{self.stage}/{self.net}{pattern}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights that fill a net's trunk: a .safetensors or .pth file, or "hf:OWNER/NAME" (see `models.weights`)."""

    source: str

    def __str__(self) -> str:
        return self.source


def parse_origin(text: str) -> FromRun | Pretrained:
    """What a config's `init_from` names; nothing is looked up yet.

    Raises:
      InputError: it is of no known form, or its pattern is no regular expression.
    """
    if text.startswith(HUB) and re.fullmatch(r"[^/\s]+/[^/\s]+", text.removeprefix(HUB)):
        return Pretrained(source=text)
    if text.endswith(SUFFIXES):
        return Pretrained(source=text)
    found = re.fullmatch(r"(.+?):([^/:#]+)/([^/:#]+)(?:#(.*))?", text)
    if not found:
        raise InputError(
            f"init_from {text!r}: expected RUN:STAGE/NET, RUN:STAGE/NET#PATTERN, a file ending in "
            f"{' or '.join(SUFFIXES)}, or {HUB}OWNER/NAME"
        )
    run, stage, net, pattern = found.groups()
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise InputError(f"init_from {text!r}: {pattern!r} is no regular expression ({error})") from error
    return FromRun(run=run, stage=stage, net=net, pattern=pattern)


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


def id_parts(source: Source) -> tuple[str | Artifact, ...]:
    """What a source's ids are the union of."""
    return source.ids if isinstance(source.ids, tuple) else (source.ids,)


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
