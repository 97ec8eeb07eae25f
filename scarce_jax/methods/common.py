"""What every method's config begins with, and the parts of a recipe that several methods use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import tyro

from scarce_jax.data.budget import Budget
from scarce_jax.errors import InputError
from scarce_jax.losses import class_counts, cross_entropy, inverse_log_weights
from scarce_jax.ops.augment import Augment, augment, normalise
from scarce_jax.ops.resize import resize_bilinear, sample_nearest
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Epochs, Eval, Infer, Mean, Net, NetState, Out, Source, interned, parse_origin
from scarce_jax.runtime import Runtime

SEGMENTER = "segmenter"
"""The role of the net that gives the masks; net folders carry it."""


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
class SegmenterStage:
    """A stage that trains a segmentation net.

    Attributes:
      net: PSPNet; the real-time DSNet of the auxiliary confidence paper; DeepLab-v2; or DeepLab-LargeFOV on VGG-16.
      steps, epochs: length of training, exactly one of them.
      batch: examples per step over all devices.
      size: (height, width) to which whole frames are resized before augmentation, and at which masks are predicted.
      depth: ResNet depth: 18, 34, 50 or 101; DSNet and LargeFOV have but one.
      width: channels of the stem; every layer scales with it (64 in the papers, 32 for DSNet).
      batch_norm: batch normalisation in LargeFOV's VGG-16, which has none in its paper, for training from scratch.
      dropout: channel dropout before PSPNet's last convolution; dropout after LargeFOV's fc6 and fc7 (0.5 in its
        paper), and of a tag classifier's features.
      aux_weight: weight of the loss of PSPNet's auxiliary head, on layer3.
      eval_every: steps between measurements on the evaluation split while training; 0 measures the result alone.
      eval_batch: images per device in evaluation and inference.
      init_from: what the net starts from where that is not drawn: RUN:STAGE/NET of another run folder, with #PATTERN
        only the parameters that this regular expression finds; a .safetensors or .pth file of torchvision's ResNet
        or VGG weights; or hf:OWNER/NAME (hf:timm/resnet50.tv_in1k) to download one.
    """

    net: Literal["pspnet", "dsnet", "deeplabv2", "largefov"] = "pspnet"
    steps: int | None = None
    epochs: float | None = None
    batch: int
    size: tuple[int, int]
    augment: Augment
    depth: Literal[18, 34, 50, 101] = 101
    width: int = 64
    batch_norm: bool = False
    dropout: float = 0.1
    aux_weight: float = 0.4
    optim: Optimizer
    eval_every: int = 0
    eval_batch: int = 4
    init_from: str | None = None


def length(stage: Any, name: str) -> int | Epochs:
    """The stage's steps or epochs.

    Raises:
      InputError: not exactly one of them is given, or it is not positive.
    """
    given = {key: value for key in ("steps", "epochs") if (value := getattr(stage, key)) is not None}
    if len(given) != 1:
        raise InputError(f"{name}: found {given or 'neither steps nor epochs'}; give exactly one of steps and epochs")
    if next(iter(given.values())) <= 0:
        raise InputError(f"{name}: {given} must be positive")
    return stage.steps if stage.steps is not None else Epochs(count=stage.epochs)


def settings(stage: SegmenterStage) -> dict[str, Any]:
    """What of a stage's config decides its result.

    How often it is measured on the way does not; nor does the name of what it starts from, whose content counts.
    `batch_norm` is told by the net itself.
    """
    names = (field.name for field in dataclasses.fields(stage) if field.name not in ("init_from", "batch_norm"))
    return {**{name: getattr(stage, name) for name in names}, "eval_every": 0}


def trained(stage: Any, module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Net:
    """The net that a stage trains; raises InputError where its `init_from` is written wrong."""
    init_from = None if stage.init_from is None else parse_origin(stage.init_from)
    return Net(module=module, inputs=inputs, optim=stage.optim, init_from=init_from)


def image_input(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """The abstract normalised image that initialises a net."""
    return jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)


def mask_input(size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """The abstract mask that initialises a net."""
    return jax.ShapeDtypeStruct((1, *size), jnp.uint8)


@interned
def augmented(config: Augment) -> Callable[[dict, jax.Array, Mapping], dict]:
    """The transform of a training source."""
    return lambda row, key, consts: augment(row, key, config)


def unaugmented(row: dict, key: jax.Array, consts: Mapping) -> dict:
    """The transform of a source that is measured or inferred: the image normalised, nothing else."""
    return {**row, "image": normalise(row["image"])}


def as_stored(row: dict, key: jax.Array, consts: Mapping) -> dict:
    """The transform that leaves the row as it is, the image in uint8."""
    return row


@interned
def segmentation_loss(
    module: nn.Module,
    fields: tuple[str, ...],
    aux_weight: float,
    source: str,
    class_weighting: float | None = None,
) -> Callable:
    """Cross-entropy of a net's logits, plus `aux_weight` times that of its auxiliary head if it has one.

    Logits of a lower resolution than the label are compared with the label's pixels at their places. The loss shares
    its "logits" with later turns.

    Args:
      fields: what of the batch goes into the net: ("image",) or ("image", "coarse").
      source: the batch's source.
      class_weighting: c of the class weights 1 / ln(c + p_class), with p_class from the stage's consts; None weighs all
        pixels alike.
    """

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[source]
        variables = {"params": params, "batch_stats": nets[SEGMENTER].stats}
        (logits, aux), updated = module.apply(
            variables, *(rows[f] for f in fields), train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        weights = None if class_weighting is None else inverse_log_weights(shared["p_class"], class_weighting)
        value = cross_entropy(logits, sample_nearest(rows["label"], logits.shape[1:3]), class_weights=weights)
        metrics = {"cross_entropy": value}
        if aux is not None:
            metrics["auxiliary_cross_entropy"] = cross_entropy(aux, rows["label"], class_weights=weights)
            value += aux_weight * metrics["auxiliary_cross_entropy"]
        stats = {SEGMENTER: updated.get("batch_stats", {})}
        return value, Out(metrics=metrics, stats=stats, share={"logits": logits})

    return loss


@interned
def segmentation_predict(module: nn.Module, fields: tuple[str, ...]) -> Callable:
    """Logits [B, H, W, K], of the image's size, of the net in the segmenter's role."""

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        logits, _ = module.apply(nets[SEGMENTER].variables, *(batch[f] for f in fields), train=False)
        return resize_bilinear(logits, batch["image"].shape[1:3], align_corners=True)

    return predict


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
    transform = augmented(augment)
    given = {"ids": "fine", "labels": ("fine",), **changes}
    return Source(
        dataset=config.dataset, split=config.train_split, batch=batch, size=size, transform=transform, **given
    )


def inference_source(config: Experiment, stage: Any, *, ids: str, **changes: Any) -> Source:
    """Images of the training split at a stage's size, not augmented; `changes` are of the Source's other fields."""
    given = {"transform": unaugmented, **changes}
    return Source(
        dataset=config.dataset,
        split=config.train_split,
        ids=ids,
        batch=stage.eval_batch,
        size=stage.size,
        **given,
    )


def class_frequencies(config: Experiment, stage: SegmenterStage, classes: int) -> Infer:
    """Stage `frequencies`: `p_class` [K], the share of the labelled images' pixels, void among them, in each class."""

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        label = batch["label"]
        return {"p_class": class_counts(label, classes) / (label.shape[1] * label.shape[2])}

    return Infer(
        name="frequencies",
        nets={},
        predict=predict,
        source=inference_source(config, stage, ids="fine", labels=("fine",)),
        settings={"size": stage.size},
        write=Mean(),
    )


def during_training(
    config: Experiment, stage: SegmenterStage, predict: Callable, fields: tuple[str, ...] = ()
) -> tuple[Eval, ...]:
    """The measurement of a stage's own nets while they train; none where `eval_every` is 0."""
    if not stage.eval_every:
        return ()
    source = evaluation_source(config, stage, fields)
    return (Eval(name=config.eval_split, predict=predict, source=source, every=stage.eval_every),)
