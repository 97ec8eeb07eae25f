"""Parts that all methods share: the base of their configs, the settings of training stages, and what trains a net."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import pydantic
import tyro
from annotated_types import Interval

from scarce_jax.data.budget import Budget
from scarce_jax.data.images import Fit
from scarce_jax.data.sampling import RareClassSampling
from scarce_jax.errors import InputError
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.segmenters import Segmenter
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Group, Optimizer
from scarce_jax.ranges import AboveOne, Batch, Count, CountOrZero, NonNegative, Pixels, Positive, Seed
from scarce_jax.recipe import Artifact, Epochs, Eval, Net, NetState, Predict, Source, Train, parse_origin
from scarce_jax.runtime import Runtime

SEGMENTER = "segmenter"
"""Role of the net that predicts masks. Folders of stored nets have this name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Base class of every method's config.

    Attributes:
      seed: seed of the initial values, the order of the images and the augmentation. The budget has its own seed.
      dataset: tfds name of a prepared dataset.
      train_split: name of the split for training.
      eval_split: name of the split for evaluation; None trains without measuring, for data without a split to measure.
      budget: which labels of the training split may be used.
      compare: also train and measure the baselines of the method.
      results: train and measure what these results and tables need, those of `compare` included; () is all.
      paper: figures that the paper reports for this config and in its tables (see `sweep.paper`).
      dtype: dtype of the computation; "auto" is bfloat16 on a GPU and float32 on a CPU. The papers computed in float32.
        Parameters stay float32.
      runtime: how the run is executed; nothing in it changes a result.
    """

    # A fact of the method, no setting.
    has_baselines: ClassVar[bool] = True

    # An unknown field in a config file or in config.json is an error, at every level.
    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    seed: Seed = 0
    dataset: str
    train_split: str = "train"
    eval_split: str | None = "val"
    budget: Budget = Budget()
    compare: bool = False
    results: tuple[str, ...] = ()
    paper: Annotated[dict[str, Any], tyro.conf.Suppress] = dataclasses.field(default_factory=dict)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    runtime: Runtime = Runtime()

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.eval_split == self.train_split:
            yield "eval_split", "another split than that of --train-split, whose images are trained on"
        if self.compare and not self.has_baselines:
            yield "compare", "False, because this method has nothing to compare with"

    def remarks(self) -> Iterator[str]:
        """What is valid, and may yet not be meant: `train` and its dry run warn of it."""
        yield from ()


def unequal(one: Any, other: Any) -> list[str]:
    """The dotted names of the settings of `other` that `one`, a dataclass of its class or a subclass, has otherwise.

    Settings that change no result are left out.
    """
    names = []
    for field in dataclasses.fields(other):
        # A subclass has a kind of its own.
        if field.name in ("kind", "eval_batch", "remat"):
            continue
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if dataclasses.is_dataclass(theirs) and isinstance(ours, type(theirs)):
            names += [f"{field.name}.{name}" for name in unequal(ours, theirs)]
        elif ours != theirs:
            names.append(field.name)
    return names


def without_fine_masks(config: Experiment) -> Iterator[tuple[str, str]]:
    """The faults of a config that budgets fine masks for a method that reads none."""
    for name, default in (("fine", "all"), ("per_class", None)):
        if getattr(config.budget, name) != default:
            yield f"budget.{name}", f"{default!r}, because no fine mask is read in this training"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStage:
    """Settings of every training stage.

    Attributes:
      steps: length of the training in steps; set either this or `epochs`.
      epochs: length of the training in passes over its images.
      batch: images per step, over all devices.
      accumulate: number of parts into which a batch is cut to save memory; a divisor of `batch`. The parts pass through
        the net one after another, and batch statistics are those of a part.
      statistics_groups: number of equal groups of the images that pass through the net together, each with batch
        statistics of its own. 1, as in the papers, normalises by all of them, so that several devices exchange
        statistics in every batch normalisation, forward and backward. With as many groups as devices they do not. The
        result is that of smaller groups ("ghost" batch normalisation, Hoffer et al., 2017), whatever the number of
        devices: noisier statistics, and running variances without the part that lies between the groups. Groups are
        consecutive images: where labelled and other images pass through the net together, the labelled ones are first.
      remat: the backward pass computes the features of each block of the net again, so that they need not be kept in
        memory; it changes no result and costs about another forward pass. Nets have blocks if they are made of residual
        blocks, a VGG, deconvolutions, a DSNet or a DINOv2.
      optim: optimizer of the net.
      eval_every: steps between measurements on the evaluation split during training; 0 measures only the result.
      keep_best: figure on the evaluation split, such as "miou"; the net with its best value is stored. None stores the
        net of the last step. With `keep_best` the evaluation split takes part in the choice of the net, unless a stage
        holds out training images in its place.
      patience: number of measurements without improvement after which training stops; None trains to the end.
      eval_batch: images per device in evaluation and inference; it changes no result.
      init_from: initial values of the net, random if None. RUN:STAGE/NET is a net of another run folder, and
        RUN:STAGE/NET#PATTERN only those of its parameters whose path matches the regular expression PATTERN. A path
        of a file of weights, or hf:OWNER/NAME to download one, gives those of the backbone: `scarce-jax weights` lists
        some, and says of a file what it is.
    """

    steps: Count | None = None
    epochs: Positive | None = None
    batch: Batch
    accumulate: Batch = 1
    statistics_groups: Batch = 1
    remat: bool = False
    optim: Optimizer
    eval_every: CountOrZero = 0
    keep_best: str | None = None
    patience: Count | None = None
    eval_batch: Batch = 4
    init_from: str | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.keep_best is not None and not self.eval_every:
            yield "keep_best", "None while eval_every is 0; set how often to measure"
        if self.patience is not None and self.keep_best is None:
            yield "patience", "None without keep_best, which defines which measurement is better"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizedStage(TrainStage):
    """Settings of a training stage that reads images of its own size.

    Attributes:
      size: (height, width) in pixels to which whole images are brought, in training before crops or windows are cut.
      fit: how they are brought to it. "stretch" resizes them to it. The others keep their proportions, and pad at the
        bottom and right, with the mean colour and void: "pad" makes them as large as fits; "native" keeps their pixels,
        and makes only those smaller that do not fit.
      interpolation: how the class probabilities of a predicted mask are brought to the native size of an image where
        the net is measured or applied. None brings the logits there, bilinearly.
    """

    size: tuple[Pixels, Pixels]
    fit: Fit = "stretch"
    interpolation: Literal["bilinear", "bicubic"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageStage(SizedStage):
    """Settings of a training stage that reads augmented images. Evaluation and inference do not augment them.

    Attributes:
      augment: random changes of each training image.
    """

    augment: Augment


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedStage(ImageStage):
    """Settings of a training stage that can keep what the frozen part of its net's backbone computes of the images.

    Attributes:
      cache: number of augmented draws of each image that are made once, before the first step. What the frozen part of
        the backbone computes of them is kept in memory, and no step computes it again. Each epoch takes one draw of an
        image, in turn. 0 keeps nothing, and no draw repeats. Without random augmentation 1 is exact.
    """

    cache: Annotated[int, Interval(ge=0, le=4096)] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterStage(CachedStage):
    """Settings of a stage that trains a segmentation net, or a tag classifier on the trunk of such a net.

    Attributes:
      net: the net, chosen by its kind.
      aux_weight: weight of the loss of the auxiliary head; PSPNet has one, on the last level of its backbone but one.
      class_weighting: c in the class weights 1 / ln(c + p) of every cross-entropy, where p is the share of the labelled
        images' pixels that belong to the class (Paszke et al., ENet, 2016, with c = 1.02). None weights all pixels
        equally.
      rare_class_sampling: exponent with which images of rare classes are drawn more often; see `data.sampling`, whose
        paper uses 0.5. It needs images whose classes the budget reveals. None draws all images equally often.
    """

    net: Segmenter = PSPNetConfig()
    aux_weight: NonNegative = 0.4
    class_weighting: AboveOne | None = None
    rare_class_sampling: Annotated[float, Interval(ge=0, le=10)] | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        patch = getattr(getattr(self.net, "backbone", None), "patch", 1)
        for name, sides in (("augment.crop", self.augment.crop), ("size", self.size)):
            if any(side % patch for side in sides):
                nearest = " ".join(str(max(1, round(side / patch)) * patch) for side in sides)
                yield name, f"multiples of {patch}, the patch of net.backbone, such as {nearest}"


def draws(stage: SegmenterStage) -> RareClassSampling | None:
    """The `weight` of a stage's labelled source: how often each image is drawn in an epoch."""
    return None if stage.rare_class_sampling is None else RareClassSampling(power=stage.rare_class_sampling)


def compute_dtype(config: Experiment) -> jnp.dtype:
    """Dtype of the modules' computation. An unresolved "auto" is float32."""
    return jnp.bfloat16 if config.dtype == "bfloat16" else jnp.float32


def resolve_length(stage: TrainStage, name: str) -> int | Epochs:
    """Length of a training stage, in steps or epochs.

    Raises:
      InputError: `steps` and `epochs` are both set or both unset.
    """
    lengths = {key: value for key in ("steps", "epochs") if (value := getattr(stage, key)) is not None}
    if len(lengths) != 1:
        raise InputError(f"{name}: found {lengths or 'neither steps nor epochs'}; set exactly one of steps and epochs")
    return stage.steps if stage.steps is not None else Epochs(count=stage.epochs)


def train(
    name: str,
    config: Experiment,
    stage: TrainStage,
    *,
    predict: Predict | None = None,
    source: Source | None = None,
    metrics: Literal["masks", "tags"] = "masks",
    **fields: Any,
) -> Train:
    """A training stage with the length, gradient accumulation and measurements of its settings.

    Args:
      predict, source: prediction and data of the measurements during training; None if the net predicts neither masks
        nor tags.
      metrics: what `predict` returns.
      fields: the other fields of `Train`.

    Raises:
      InputError: the length is invalid, or `eval_every` is set for a net without a prediction.
    """
    evals = ()
    if stage.eval_every:
        if predict is None:
            raise InputError(
                f"{name}.eval_every is {stage.eval_every}; expected 0, because its net predicts no classes"
            )
        measurement = Eval(
            name=config.eval_split,
            predict=predict,
            source=source,
            metrics=metrics,
            every=stage.eval_every,
            keep_best=stage.keep_best,
            patience=stage.patience,
        )
        evals = (measurement,)
    steps = resolve_length(stage, name)
    shared = {field: getattr(stage, field) for field in ("accumulate", "statistics_groups", "remat")}
    return Train(name=name, steps=steps, evals=evals, **shared, **fields)


def as_long_as(stage: Train, other: str) -> Train:
    """The stage with as many steps as the stage `other`, regardless of the number of its own images."""
    if not isinstance(stage.steps, Epochs):
        return stage
    return dataclasses.replace(stage, steps=dataclasses.replace(stage.steps, of=other))


def trained(stage: TrainStage, module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Net:
    """The net that a stage trains. Raises InputError if `init_from` is malformed."""
    init_from = None if stage.init_from is None else parse_origin(stage.init_from)
    return Net(module=module, inputs=inputs, optim=with_backbone(stage.optim, stage), init_from=init_from)


def with_backbone(optim: Optimizer, stage: TrainStage) -> Optimizer:
    """The optimizer, with groups of the backbone of the stage's net before its own: frozen parts, decaying rates."""
    backbone = getattr(getattr(stage, "net", None), "backbone", None)
    groups, decay = (), optim.layer_decay
    if backbone is not None and backbone.frozen_pattern is not None:
        groups = (Group(pattern=backbone.frozen_pattern, lr=0.0),)
    if decay is not None and hasattr(backbone, "layer_groups"):
        groups, decay = (*groups, *backbone.layer_groups(decay)), None
    return dataclasses.replace(optim, groups=(*groups, *optim.groups), layer_decay=decay) if groups else optim


def frozen(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...], stage: str, role: str) -> Net:
    """The net `role` of the earlier stage `stage`, which is not trained further."""
    return Net(module=module, inputs=inputs, init_from=Artifact(stage=stage, name=role))


def apply_in_training(
    module: nn.Module, params: Any, net: NetState, *inputs: jax.Array, key: jax.Array
) -> tuple[Any, Any]:
    """Applies a net in training mode.

    Args:
      params: parameters of the net that are differentiated.
      net: state of the net, for its batch statistics.
      key: random key of the dropout.

    Returns:
      The outputs of the module, and its new batch statistics ({} if it has none).
    """
    variables = {"params": params, "batch_stats": net.batch_stats}
    outputs, updated = module.apply(variables, *inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    return outputs, updated.get("batch_stats", {})


def rows(outputs: Any, start: int, count: int) -> Any:
    """Consecutive rows of a net's outputs."""
    return jax.tree.map(lambda x: x[start : start + count], outputs)


def concatenated(*rows: Any) -> Any:
    """Trees of arrays [B1, ...], [B2, ...], ... of equal structure, joined: [B1 + B2 + ..., ...]."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *rows)
