"""Stages and results: a method turns its config into `Train` and `Infer` stages and named `Eval` results.

Everything here is a frozen dataclass of values and pure functions. `training.run` executes them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from scarce_jax.data.figures import group_figure
from scarce_jax.errors import InputError
from scarce_jax.optim import Optimizer
from scarce_jax.recipe.origins import FromRun, Pretrained
from scarce_jax.recipe.sources import Artifact, Read, Source
from scarce_jax.recipe.state import NetState, Out, PyTree
from scarce_jax.recipe.views import PLAIN, Views


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """A network of a stage.

    Attributes:
      module: Flax module, called as `module(*inputs, train=...)`. Its fields are plain values or modules.
      inputs: abstract inputs that initialise it (batch 1 is enough).
      optim: its optimizer; None freezes the net. A frozen net of an earlier stage is not stored again.
      init_from: the origin of its initial weights: a net of an earlier stage, a net of another run, or a file. None
        draws initial values.
    """

    module: nn.Module
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    optim: Optimizer | None = None
    init_from: Artifact | FromRun | Pretrained | None = None


Loss = Callable[[PyTree, Mapping[str, NetState], dict, dict, jax.Array], tuple[jax.Array, Out]]
Predict = Callable[[Mapping[str, NetState], dict, Mapping], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """One update of a net within a step, by the gradient of `loss(params, nets, batch, shared, key)`.

    `shared` has the constants of the stage, the shared arrays of earlier turns, the number of the step as "step", and
    as "averages" the moving averages of parameters (`Optimizer.ema`) with which the step began, role -> tree.
    A loss is a frozen dataclass with `__call__`, or a function of a module, because it is part of the fingerprint of
    the stage. Stages with equal turns, optimizers and transforms share their compiled step.

    Attributes:
      net: role of the net.
      loss: returns a float32 scalar and an `Out`.
    """

    net: str
    loss: Loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval:
    """A measurement of predicted masks against the truth at native size, or of predicted image tags.

    Attributes:
      name: name of the measurement.
      nets: role -> net, restored from an earlier stage; empty in `Train.evals`, which measure the nets of their stage.
      predict: `(nets, batch, consts) -> scores [B, h, w, K]`, of which the largest wins; None predicts 255 everywhere.
      source: the images to measure; `labels` is the truth.
      metrics: what to measure. "tags" needs the field "tags" and no `labels`; `predict` then returns logits [B, K], or
        [B, K - 1] without the background.
      composite: take the coarse mask's class wherever it has one (detailer paper, section 5).
      threshold: least confidence of a pixel, 0..1, that gets a class; the others get 255. `predict` then returns one
        more channel, the confidences 0..1. Such masks have no views. None gives every pixel a class.
      inferred: records whose masks are measured in place of a prediction; `predict` is then None.
      hidden_truth: also use truth that the budget does not grant, to measure inferred labels. Only for results: no
        stage may depend on it.
      groups: name -> class ids; the mean IoU of each group is the figure `miou_<name>`.
      views: mirrored, scaled and windowed predictions to average.
      no_window: why views must not have a window, for the message; None if they may.
      every: steps between measurements in training, besides the one after the last step; 0 measures only there.
      keep_best: metric whose best measurement determines the stored nets; None stores those of the last step.
      patience: number of measurements without a better one after which training ends; needs `keep_best` and `every`.
      consts: as in `Train`.
    """

    name: str
    nets: Mapping[str, Net] = dataclasses.field(default_factory=dict)
    predict: Callable[[Mapping[str, NetState], dict, Mapping], jax.Array] | None
    source: Source
    metrics: Literal["masks", "tags"] = "masks"
    composite: bool = False
    threshold: float | None = None
    inferred: Artifact | Read | None = None
    hidden_truth: bool = False
    groups: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    views: Views = PLAIN
    no_window: str | None = None
    every: int = 0
    keep_best: str | None = None
    patience: int | None = None
    consts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check_origins(self)
        if self.views.window is not None and self.no_window:
            raise InputError(
                f"result {self.name}: its views have a window of {list(self.views.window)}; expected none, because "
                f"{self.no_window}"
            )
        if self.threshold is not None and not self.views.plain:
            raise InputError(
                f"result {self.name}: a second net judges each pixel of the plain image; it takes no --flip, --scales, "
                f"--window or --crf"
            )
        if self.patience is not None and not (self.keep_best and self.every and self.patience > 0):
            raise ValueError(f"eval {self.name}: patience is {self.patience}; expected at least 1, keep_best and every")
        if self.keep_best is not None and self.keep_best not in self.figures:
            raise InputError(
                f"keep_best is {self.keep_best!r}; expected one of {', '.join(self.figures)}, which this stage measures"
            )

    @property
    def needs_coarse(self) -> bool:
        """Whether images are predicted together with their coarse masks."""
        return "coarse" in self.source.fields

    @property
    def figures(self) -> tuple[str, ...]:
        """The summary figures of the measurement, the most important first."""
        if self.metrics == "tags":
            return "map", "mean_f1"
        return "miou", *map(group_figure, self.groups), "mean_accuracy", "pixel_accuracy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maps:
    """Maps of an image, such as where it shows an object: `predict` and the report make them; nothing measures them.

    Attributes:
      name: name of the maps.
      names: names of the M maps of an image.
      nets: role -> net, restored from an earlier stage.
      predict: `(nets, batch, consts) -> float [B, H, W, M]`, 0..1, of the images' size. A map of zeros is not shown.
      source: gives the size, the batch per device and the transform of the images.
      consts: as in `Train`.
    """

    name: str
    names: tuple[str, ...]
    nets: Mapping[str, Net]
    predict: Callable[[Mapping[str, NetState], dict, Mapping], jax.Array]
    source: Source
    consts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        _check_origins(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epochs:
    """A number of steps in passes over the first source of a stage; resolved when the size of the source is known.

    Attributes:
      count: number of passes.
      of: name of the stage; None is the stage itself.
    """

    count: float
    of: str | None = None

    def resolve(self, images: int, batch: int) -> int:
        """The number of steps, at least 1, for so many images a pass."""
        return max(1, math.ceil(self.count * images / batch))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """A training stage. All turns are compiled into one step; each trained net is stored as an Orbax item.

    Attributes:
      name: name of the stage.
      nets: role -> net.
      turns: the updates of a step, in order.
      sources: name -> source; a step takes a batch of each.
      steps: optimizer steps.
      accumulate: number of equal parts a batch is cut into. The parts go through the nets one after the other, and
        their gradients are averaged. It saves memory; batch statistics are those of a part.
      statistics_groups: number of equal groups of images, in each of these parts, with batch statistics of their own.
      remat: whether the backward pass computes the features of each block again, to save memory.
      evals: measurements of the stage's nets.
      consts: arrays, or Artifacts of `Mean` stages. They are part of `shared`, and given to `transform`.
      keys_as: name of another stage whose keys are used for initial values, order and augmentation, so that the two
        stages can be compared on equal draws.
    """

    name: str
    nets: Mapping[str, Net]
    turns: tuple[Turn, ...]
    sources: Mapping[str, Source]
    steps: int | Epochs
    accumulate: int = 1
    statistics_groups: int = 1
    remat: bool = False
    evals: tuple[Eval, ...] = ()
    consts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keys_as: str | None = None

    @property
    def drawn_as(self) -> str:
        """The name that determines the random keys."""
        return self.keys_as or self.name

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizer of every trained net, by role."""
        return {role: net.optim for role, net in self.nets.items() if net.optim}

    def __post_init__(self):
        # The nets that are stored may depend on the evals.
        if any(evaluation.hidden_truth for evaluation in self.evals):
            raise ValueError(f"stage {self.name}: an eval looks at hidden truth, which is for results only")
        for name, source in self.sources.items():
            if self.accumulate < 1 or source.batch % self.accumulate:
                raise InputError(
                    f"{self.name}.accumulate is {self.accumulate}; expected a divisor of the batch of {name}, "
                    f"{source.batch}"
                )
            if self.statistics_groups < 1 or source.batch // self.accumulate % self.statistics_groups:
                raise InputError(
                    f"{self.name}.statistics_groups is {self.statistics_groups}; expected a divisor of "
                    f"{source.batch // self.accumulate}, the images of {name} that pass through the net together"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """Stores one entry per example: the arrays that `predict` (and `finish`) returned for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
    """Stores the mean of the predictions over all examples; it replaces the batch_stats of the net `into`."""

    into: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infer:
    """A stage of one pass of inference over a source.

    Attributes:
      name: name of the stage.
      nets: role -> net.
      predict: `(nets, batch, consts) -> {field: [B, ...]}`, jitted.
      source: the images to predict.
      finish: `(id, {field: array}) -> {field: array}`, called per example in worker processes without JAX.
      views: mirrored and scaled images to predict too; `predict` is called for each of them. Windows and a CRF are only
        for results.
      combine: `([{field: [B, ...]} per view], [whether it is mirrored]) -> {field: [B, ...]}`, such as `ViewMean`;
        required if the views are not plain.
      write: what to store.
      status: meanings of the values 0, 1, ... of the records' field "status", which are counted in DONE and the
        summary; empty if there is no such field.
      per_batch: whether `predict` mixes the examples of a batch (batch statistics), so that the batch size affects the
        output.
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
            raise ValueError(f"stage {self.name}: its views have a window or a CRF, which are for results only")
        if not self.views.plain and (self.combine is None or self.source.size is None):
            raise ValueError(f"stage {self.name}: several views need `combine` and a source with a size")
        if self.combine is not None and self.source.fit != "stretch":
            raise InputError(
                f"stage {self.name}: combines views of its images, whose fit is {self.source.fit!r}; expected "
                f"'stretch', because the views are averaged on one grid"
            )


Stage = Train | Infer


def _check_origins(stage: Infer | Eval | Maps) -> None:
    """Nets of results and inferring stages must come from the run itself, because only a `Train` stores nets."""
    for role, net in stage.nets.items():
        if not isinstance(net.init_from, Artifact):
            raise ValueError(
                f"{stage.name}: net {role} starts from {net.init_from}; expected a net of an earlier stage"
            )
