"""Segmentation of one class at a time: a frozen classifier says which class, and a net tells it from all else.

"Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation", sections 4.2, 4.3 and 5. What the paper
leaves open is as in its authors' published inference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from scarce_jax.errors import InputError
from scarce_jax.losses import cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER
from scarce_jax.methods.supervised import CLASSIFIER
from scarce_jax.models.decoupled import Classified, DecoupledClassifier, SegmentationNet, class_saliency
from scarce_jax.models.resnet import MOMENTUM
from scarce_jax.ops.combinatorial import Combinatorial, crop_subset, subset_draws
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Artifact, Infer, Loss, Mean, Net, NetState, Out, Source, Train, Turn, interned

FLOOR = 1e-6
"""Share of a class that an image is not said to have, so that its logarithm is finite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationStage:
    """Training of bridging layers and deconvolution net on the few masks.

    Attributes:
      steps, epochs: length of training, exactly one of them. An epoch has N_p windows of each subset of labels.
      batch: windows per step over all devices.
      size: (height, width) to which whole frames are resized before windows are cut.
      crops: windows; their `crop` is also the size at which masks are predicted.
      hidden: channels of fc6-seg and fc7-seg; None for 32 times the classifier's width.
      reestimate: windows of each image from which the statistics of batch normalisation are averaged after training, as
        the authors do before inference; 0 keeps the running averages.
      eval_every: steps between measurements on the evaluation split while training; 0 measures the result alone.
      eval_batch: images per device in evaluation and inference.
      init_from: as in `common.SegmenterStage`.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int
    size: tuple[int, int]
    crops: Combinatorial
    hidden: int | None = None
    reestimate: int = 0
    optim: Optimizer
    eval_every: int = 0
    eval_batch: int = 4
    init_from: str | None = None

    def __post_init__(self):
        if self.reestimate < 0:
            raise InputError(f"reestimate is {self.reestimate}; expected a number of windows, or 0")


class ByClass(NamedTuple):
    """The two nets of the method, and the dataset that they are for.

    Attributes:
      background: class that is no label; the classifier has an output for each of the others, in their order.
    """

    classifier: DecoupledClassifier
    segmenter: SegmentationNet
    classes: int
    background: int

    def classify(self, nets: Mapping[str, NetState], images: jax.Array) -> Classified:
        """What the frozen classifier makes of images; no gradient goes through it."""
        found = self.classifier.apply(nets[CLASSIFIER].variables, images, method="classify")
        return jax.lax.stop_gradient(found)

    def saliency(
        self,
        nets: Mapping[str, NetState],
        found: Classified,
        labels: jax.Array,
        probabilities: jax.Array | None = None,
    ) -> jax.Array:
        """`class_saliency` of these label vectors [B, L, K - 1]: [B, L, h, w, C]."""
        variables = nets[CLASSIFIER].variables
        saliency = class_saliency(self.classifier, variables, found.pool5, labels, probabilities)
        return jax.lax.stop_gradient(saliency)

    def trained_on(self, rows: Mapping[str, jax.Array], nets: Mapping[str, NetState]) -> tuple[jax.Array, ...]:
        """The segmentation net's inputs for windows: the saliency is that of their subsets."""
        found = self.classify(nets, rows["image"])
        labels = jnp.delete(rows["subset"], self.background, axis=-1).astype(jnp.float32)
        return found.pool5, self.saliency(nets, found, labels[:, None])[:, 0], *found.switches


def inputs(by_class: ByClass, crop: tuple[int, int]) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Abstract inputs of the segmentation net for images of this size."""
    width = by_class.segmenter.width
    channels = (width, 2 * width, 4 * width, 8 * width, 8 * width)
    switches = [
        jax.ShapeDtypeStruct((1, crop[0] >> pool, crop[1] >> pool, c), jnp.uint8) for pool, c in enumerate(channels, 1)
    ]
    pool5 = jax.ShapeDtypeStruct(switches[-1].shape, jnp.float32)
    return pool5, pool5, *switches


def train_segmentation(
    name: str, config: common.Experiment, stage: SegmentationStage, by_class: ByClass, classifier: Net
) -> Train:
    """A stage that trains the segmentation net beside the frozen classifier."""
    crop = stage.crops.crop
    return Train(
        name=name,
        nets={
            CLASSIFIER: classifier,
            SEGMENTER: common.trained(stage, by_class.segmenter, inputs(by_class, crop)),
        },
        turns=(Turn(net=SEGMENTER, loss=figure_loss(by_class, "labelled")),),
        sources={
            "labelled": Source(
                dataset=config.dataset,
                split=config.train_split,
                ids="fine",
                labels=("fine",),
                batch=stage.batch,
                size=stage.size,
                transform=_windows(stage.crops, by_class),
                weight=subset_draws(stage.crops.windows),
            )
        },
        steps=common.length(stage, name),
        settings={key: value for key, value in _settings(stage).items() if key != "reestimate"},
        evals=common.during_training(config, dataclasses.replace(stage, size=crop), predict_by_class(by_class)),
    )


def _settings(stage: SegmentationStage) -> dict[str, Any]:
    fields = {field.name: getattr(stage, field.name) for field in dataclasses.fields(stage)}
    return {name: value for name, value in fields.items() if name != "init_from"} | {"eval_every": 0}


@interned
def _windows(crops: Combinatorial, by_class: ByClass) -> Callable[[dict, jax.Array, Mapping], dict]:
    return lambda row, key, consts: crop_subset(row, key, crops, by_class.classes, by_class.background)


@interned
def figure_loss(by_class: ByClass, source: str) -> Loss:
    """Equation 2: softmax cross-entropy of figure and ground, the mean over the pixels that are not void.

    Only the segmentation net learns; the classifier's parameters get no gradient.
    """

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[source]
        variables = {"params": params, "batch_stats": nets[SEGMENTER].stats}
        given = by_class.trained_on(rows, nets)
        logits, updated = by_class.segmenter.apply(variables, *given, train=True, mutable=["batch_stats"])
        return cross_entropy(logits, rows["label"]), Out(stats={SEGMENTER: updated["batch_stats"]})

    return loss


def predict_by_class(by_class: ByClass) -> Callable:
    """Log-probabilities [B, H, W, K] of the classes that the classifier finds, and of the background (section 4.3).

    A class is there if its probability is above 0.5. One pass of the segmentation net for each gives its foreground
    M_f, and one for all together the background M_b; other classes have none, and the shares of a pixel are scaled to
    the sum of 1. An image without a class is background.

    Passes are made for the whole batch at a time, the r-th one for the r-th likeliest class of every image, and there
    are as many as the image with most classes needs: a loop whose length the data decide, so that any number of classes
    takes the memory of one and nothing is compiled anew.
    """
    outputs = by_class.classes - 1

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        found = by_class.classify(nets, batch["image"])
        probabilities = jax.nn.sigmoid(found.average)
        present = probabilities > 0.5
        count = present.sum(-1)
        order = jnp.argsort(jnp.where(present, -probabilities, 1.0), axis=-1)
        each = jnp.eye(outputs) * present[:, None]  # [B, L, L]
        labels = jnp.concatenate([each, present[:, None].astype(each.dtype)], 1)
        # Of every class: the way back through the head is cheap beside one pass, and the head itself runs once.
        saliency = by_class.saliency(nets, found, labels, probabilities)

        def segment(saliency: jax.Array) -> jax.Array:
            variables = nets[SEGMENTER].variables
            logits = by_class.segmenter.apply(variables, found.pool5, saliency, *found.switches, train=False)
            return jax.nn.softmax(logits.astype(jnp.float32))

        def add(rank: jax.Array, scores: jax.Array) -> jax.Array:
            chosen = order[:, rank]
            figure = segment(jax.vmap(lambda x, k: x[k])(saliency, chosen))[..., 1]
            share = jax.nn.one_hot(chosen, outputs) * (rank < count)[:, None]  # [B, L]
            return scores + figure[..., None] * share[:, None, None]

        ground = segment(saliency[:, -1])[..., 0]
        ground = jnp.where((count > 0)[:, None, None], ground, 1.0)
        # Made from a share, so that under `shard_map` it differs by device as what is added does.
        nothing = ground[..., None] * jnp.zeros(outputs)
        figures = jax.lax.fori_loop(0, count.max(), add, nothing)
        before, after = figures[..., : by_class.background], figures[..., by_class.background :]
        scores = jnp.concatenate([before, ground[..., None], after], -1)
        return jnp.log(jnp.maximum(scores / jnp.maximum(scores.sum(-1, keepdims=True), FLOOR), FLOOR))

    return predict


def reestimated(
    name: str, config: common.Experiment, stage: SegmentationStage, by_class: ByClass, trained: Train
) -> Infer:
    """A stage that averages the segmentation net's batch statistics over training windows (`stage.reestimate`).

    They replace the running averages of the net that `trained` left; `Artifact(stage=name, name=SEGMENTER)` is that net
    with them. As the authors' script does it, but for its factor m / (m - 1) of the variances: the mean over batches,
    every layer normalising by its own batch.
    """
    windows = _windows(stage.crops, by_class)

    def predict(nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        size = len(batch["image"])

        def measure(k: jax.Array) -> dict[str, jax.Array]:
            """Of one window of each image."""
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), k), size)
            rows = jax.vmap(lambda row, key: windows(row, key, consts))(batch, keys)
            before = jax.tree.map(jnp.zeros_like, nets[SEGMENTER].stats)
            variables = {"params": nets[SEGMENTER].params, "batch_stats": before}
            given = by_class.trained_on(rows, nets)
            _, updated = by_class.segmenter.apply(variables, *given, train=True, mutable=["batch_stats"])
            # From zero, what the running average became is this share of the batch's own statistics.
            return jax.tree.map(lambda x: x / (1 - MOMENTUM), updated["batch_stats"])

        # One at a time: as many windows as are asked for take the memory of one.
        means = jax.tree.map(lambda x: x.mean(0), jax.lax.map(measure, jnp.arange(stage.reestimate)))
        flat = traverse_util.flatten_dict(means, sep="/")
        return {name: jnp.broadcast_to(x, (size, *x.shape)) for name, x in flat.items()}

    frozen = {
        CLASSIFIER: trained.nets[CLASSIFIER],
        SEGMENTER: dataclasses.replace(
            trained.nets[SEGMENTER], optim=None, init_from=Artifact(stage=trained.name, name=SEGMENTER)
        ),
    }
    return Infer(
        name=name,
        nets=frozen,
        predict=predict,
        source=common.inference_source(config, stage, ids="fine", labels=("fine",), transform=common.as_stored),
        settings=_settings(stage),
        write=Mean(into=SEGMENTER),
    )
