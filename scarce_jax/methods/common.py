"""What every method's config begins with, and the sources of its stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import pydantic
import tyro

from scarce_jax.data.budget import Budget
from scarce_jax.data.sampling import RareClassSampling
from scarce_jax.errors import InputError
from scarce_jax.losses import class_counts
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.segmenters import Segmenter
from scarce_jax.ops.augment import Augment, augment, normalise
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Artifact, Epochs, Eval, Infer, Mean, Net, NetState, Source, Train, parse_origin
from scarce_jax.runtime import Runtime

SEGMENTER = "segmenter"
"""The role of the net that gives the masks; net folders carry it."""

FREQUENCIES = "frequencies"
"""The stage that measures how often the labelled images show each class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """The top of every config.

    Attributes:
      seed: of initial values, order and augmentation; not of the budget, which seeds share.
      dataset: tfds name of a prepared dataset.
      train_split, eval_split: splits trained on and measured on.
      budget: which labels may be used.
      compare: also train and measure the stages that the method is compared with.
      paper: figures of the paper that this config reproduces, by result.
      dtype: compute dtype; "auto" is bfloat16 on a GPU and float32 on a CPU. Parameters stay float32.
    """

    # A config file or config.json with a field that there is none is an error, at every level.
    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    seed: int = 0
    dataset: str
    train_split: str = "train"
    eval_split: str = "val"
    budget: Budget = Budget()
    compare: bool = False
    paper: Annotated[dict[str, Any], tyro.conf.Suppress] = dataclasses.field(default_factory=dict)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    runtime: Runtime = Runtime()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStage:
    """What every training stage has.

    Attributes:
      steps, epochs: length of training, exactly one of them.
      batch: examples per step over all devices.
      accumulate: parts into which the batch is cut, one after another through the net, to save memory; a divisor of
        `batch`. Batch statistics are those of a part.
      optim: its optimizer.
      eval_every: steps between measurements on the evaluation split while training; 0 measures the result alone.
      keep_best: figure on the evaluation split ("miou") whose best measurement gives the result; None keeps the last
        step. The split then has a part in the choice.
      patience: measurements without a better one after which training stops early; None trains to the end.
      eval_batch: images per device in evaluation and inference; it changes no result.
      init_from: what the net starts from where that is not drawn: RUN:STAGE/NET of another run folder, with #PATTERN
        only the parameters that this regular expression finds; a .safetensors or .pth file of torchvision's ResNet
        or VGG weights; or hf:OWNER/NAME (hf:timm/resnet50.tv_in1k) to download one.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int
    accumulate: int = 1
    optim: Optimizer
    eval_every: int = 0
    keep_best: str | None = None
    patience: int | None = None
    eval_batch: int = 4
    init_from: str | None = None

    def __post_init__(self):
        if self.keep_best is not None and not self.eval_every:
            raise InputError(f"keep_best is {self.keep_best!r}, but eval_every is 0; set how often to measure")
        if self.patience is not None and (self.keep_best is None or self.patience < 1):
            raise InputError(f"patience is {self.patience}; expected at least 1, and keep_best to say what is better")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterStage(TrainStage):
    """A stage that trains a segmentation net, or a classifier of image tags on its trunk.

    Attributes:
      net: the net, chosen by kind.
      size: (height, width) to which whole frames are resized before augmentation, and at which masks are predicted.
      augment: random changes of each image.
      aux_weight: weight of the loss of an auxiliary head (PSPNet has one, on layer3).
      class_weighting: c of the class weights 1 / ln(c + p) in every cross-entropy (Paszke et al., ENet, 2016; 1.02
        there), p being the share of the labelled images' pixels in a class; None weighs all pixels alike.
      rare_class_sampling: power with which images of rare classes are drawn more often (`data.sampling`), of images
        whose classes the budget tells; 0.5 in the paper cited there, None draws all images alike.
    """

    net: Segmenter = PSPNetConfig()
    size: tuple[int, int]
    augment: Augment
    aux_weight: float = 0.4
    class_weighting: float | None = None
    rare_class_sampling: float | None = None

    def __post_init__(self):
        super().__post_init__()
        draws(self)
        if self.class_weighting is not None and self.class_weighting <= 1:
            raise InputError(f"class_weighting is {self.class_weighting}; expected above 1, or none")


def draws(stage: SegmenterStage) -> RareClassSampling | None:
    """How often a stage draws each image in an epoch: the `weight` of its source of labelled images."""
    return None if stage.rare_class_sampling is None else RareClassSampling(power=stage.rare_class_sampling)


def compute_dtype(config: Experiment) -> jnp.dtype:
    """The modules' compute dtype; an unresolved "auto" counts as float32."""
    return jnp.bfloat16 if config.dtype == "bfloat16" else jnp.float32


def resolve_length(stage: TrainStage, name: str) -> int | Epochs:
    """The stage's steps or epochs.

    Raises:
      InputError: not exactly one of them is given, or it is not positive.
    """
    lengths = {key: value for key in ("steps", "epochs") if (value := getattr(stage, key)) is not None}
    if len(lengths) != 1:
        raise InputError(f"{name}: found {lengths or 'neither steps nor epochs'}; give exactly one of steps and epochs")
    if next(iter(lengths.values())) <= 0:
        raise InputError(f"{name}: {lengths} must be positive")
    return stage.steps if stage.steps is not None else Epochs(count=stage.epochs)


def check_unmeasured(stage: TrainStage, name: str, reason: str) -> None:
    """Raises InputError where the config asks to measure a net that gives no masks or tags."""
    if stage.eval_every:
        raise InputError(f"{name}.eval_every is {stage.eval_every}; expected 0, since {reason}")


def as_long_as(stage: Train, other: str) -> Train:
    """The stage with as many steps as another one takes, whatever the number of its own images."""
    if not isinstance(stage.steps, Epochs):
        return stage
    return dataclasses.replace(stage, steps=dataclasses.replace(stage.steps, of=other))


def trained(stage: TrainStage, module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Net:
    """The net that a stage trains; raises InputError where its `init_from` is written wrong."""
    init_from = None if stage.init_from is None else parse_origin(stage.init_from)
    return Net(module=module, inputs=inputs, optim=stage.optim, init_from=init_from)


def frozen(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...], stage: str, role: str) -> Net:
    """The net that an earlier stage left."""
    return Net(module=module, inputs=inputs, init_from=Artifact(stage=stage, name=role))


def image_input(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """The abstract normalised image that initialises a net."""
    return jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)


def mask_input(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """The abstract mask that initialises a net."""
    return jax.ShapeDtypeStruct((1, *size), jnp.uint8)


@dataclasses.dataclass(frozen=True)
class Augmented:
    """The transform of a training source."""

    settings: Augment

    def __call__(self, row: dict, key: jax.Array, consts: Mapping) -> dict:
        return augment(row, key, self.settings)


def unaugmented(row: dict, key: jax.Array, consts: Mapping) -> dict:
    """The transform of a source that is measured or inferred: the image normalised, nothing else."""
    return {**row, "image": normalise(row["image"])}


def as_stored(row: dict, key: jax.Array, consts: Mapping) -> dict:
    """The transform that leaves the row as it is, the image in uint8."""
    return row


def evaluation_source(config: Experiment, stage: SegmenterStage, fields: tuple[str, ...] = ()) -> Source:
    """Every image of the evaluation split at a stage's size, with its fine mask."""
    return Source(
        dataset=config.dataset,
        split=config.eval_split,
        fields=fields,
        labels=("fine",),
        batch=stage.eval_batch,
        size=stage.size,
        transform=unaugmented,
    )


def training_source(
    config: Experiment, *, batch: int, size: tuple[int, int], augment: Augment, **changes: Any
) -> Source:
    """Images of the training split, augmented: those with fine masks, unless `changes` name other ids and labels."""
    transform = Augmented(augment)
    fields = {"ids": "fine", "labels": ("fine",), **changes}
    return Source(
        dataset=config.dataset, split=config.train_split, batch=batch, size=size, transform=transform, **fields
    )


def inference_source(config: Experiment, stage: Any, *, ids: str, **changes: Any) -> Source:
    """Images of the training split at a stage's size, not augmented; `changes` are of the Source's other fields."""
    fields = {"transform": unaugmented, **changes}
    return Source(
        dataset=config.dataset,
        split=config.train_split,
        ids=ids,
        batch=stage.eval_batch,
        size=stage.size,
        **fields,
    )


@dataclasses.dataclass(frozen=True)
class ClassShares:
    """`p_class` [B, K]: the share of each image's pixels, void among them, in each class."""

    classes: int

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        label = batch["label"]  # [B, H, W]
        return {"p_class": class_counts(label, self.classes) / (label.shape[1] * label.shape[2])}


def class_frequencies(config: Experiment, stage: SegmenterStage, classes: int) -> Infer:
    """Stage `frequencies`: the mean of `ClassShares` over the labelled images at a stage's size."""
    return Infer(
        name=FREQUENCIES,
        nets={},
        predict=ClassShares(classes),
        source=inference_source(config, stage, ids="fine", labels=("fine",)),
        write=Mean(),
    )


def with_frequencies(config: Experiment, stages: list[Train | Infer], stage: SegmenterStage, classes: int) -> tuple:
    """The stages of a recipe, after `frequencies` where one of them reads what that stage leaves."""
    wanted = any(value == Artifact(stage=FREQUENCIES, name="p_class") for s in stages for value in s.consts.values())
    return (*([class_frequencies(config, stage, classes)] if wanted else []), *stages)


def during_training(
    config: Experiment,
    stage: TrainStage,
    predict: Any,
    source: Source,
    metrics: Literal["masks", "tags"] = "masks",
) -> tuple[Eval, ...]:
    """The measurement of a stage's own nets while they train; none where `eval_every` is 0."""
    if not stage.eval_every:
        return ()
    return (
        Eval(
            name=config.eval_split,
            predict=predict,
            source=source,
            metrics=metrics,
            every=stage.eval_every,
            keep_best=stage.keep_best,
            patience=stage.patience,
        ),
    )
