"""Segmentation of one class at a time: a frozen classifier says which class, and a net tells it from all else.

"Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation", sections 4.2, 4.3 and 5. What the paper
leaves open is as in its authors' published inference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from scarce_jax.errors import InputError
from scarce_jax.losses import cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, TrainStage
from scarce_jax.methods.segmentation import total_weight
from scarce_jax.methods.tagging import CLASSIFIER
from scarce_jax.models.decoupled import Classified, DecoupledClassifier, SegmentationNet, class_saliency
from scarce_jax.models.layers import MOMENTUM
from scarce_jax.ops.combinatorial import Combinatorial, SubsetDraws, crop_subset
from scarce_jax.recipe import Artifact, Infer, Mean, Net, NetState, Out, Source, Train, Turn

FLOOR = 1e-6
"""Share of a class that an image is not said to have, so that its logarithm is finite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationStage(TrainStage):
    """Training of bridging layers and deconvolution net on the few masks.

    An epoch has N_p windows of each subset of labels, and the batch is of windows.

    Attributes:
      size: (height, width) to which whole frames are resized before windows are cut.
      crops: windows; their `crop` is also the size at which masks are predicted.
      hidden: channels of fc6-seg and fc7-seg; None for 32 times the classifier's width.
      reestimate: windows of each image from which the statistics of batch normalisation are averaged after training, as
        the authors do before inference; 0 keeps the running averages.
    """

    size: tuple[int, int]
    crops: Combinatorial
    hidden: int | None = None
    reestimate: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.reestimate < 0:
            raise InputError(f"reestimate is {self.reestimate}; expected a number of windows, or 0")


@dataclasses.dataclass(frozen=True)
class ByClass:
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
        classified = self.classifier.apply(nets[CLASSIFIER].variables, images, method="classify")
        return jax.lax.stop_gradient(classified)

    def saliency(
        self,
        nets: Mapping[str, NetState],
        classified: Classified,
        labels: jax.Array,
        probabilities: jax.Array | None = None,
    ) -> jax.Array:
        """`class_saliency` of these label vectors [B, L, K - 1]: [B, L, h, w, C]."""
        variables = nets[CLASSIFIER].variables
        saliency = class_saliency(self.classifier, variables, classified.pool5, labels, probabilities)
        return jax.lax.stop_gradient(saliency)

    def trained_on(self, rows: Mapping[str, jax.Array], nets: Mapping[str, NetState]) -> tuple[jax.Array, ...]:
        """The segmentation net's inputs for windows: the saliency is that of their subsets."""
        classified = self.classify(nets, rows["image"])
        labels = jnp.delete(rows["subset"], self.background, axis=-1).astype(jnp.float32)
        return classified.pool5, self.saliency(nets, classified, labels[:, None])[:, 0], *classified.switches


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
    evaluation = dataclasses.replace(common.evaluation_source(config, stage), size=crop)
    return Train(
        name=name,
        nets={
            CLASSIFIER: classifier,
            SEGMENTER: common.trained(stage, by_class.segmenter, inputs(by_class, crop)),
        },
        turns=(Turn(net=SEGMENTER, loss=FigureLoss(by_class)),),
        sources={
            "labelled": Source(
                dataset=config.dataset,
                split=config.train_split,
                ids="fine",
                labels=("fine",),
                batch=stage.batch,
                size=stage.size,
                transform=Windows(stage.crops, by_class.classes, by_class.background),
                weight=SubsetDraws(stage.crops.windows),
            )
        },
        steps=common.resolve_length(stage, name),
        accumulate=stage.accumulate,
        evals=common.during_training(config, stage, PredictByClass(by_class), evaluation),
    )


@dataclasses.dataclass(frozen=True)
class Windows:
    """The transform of a training source: a window of the image, and a subset of its classes."""

    crops: Combinatorial
    classes: int
    background: int

    def __call__(self, row: dict, key: jax.Array, consts: Mapping) -> dict:
        return crop_subset(row, key, self.crops, self.classes, self.background)


@dataclasses.dataclass(frozen=True)
class FigureLoss:
    """Equation 2: softmax cross-entropy of figure and ground, the mean over the pixels that are not void.

    Only the segmentation net learns; the classifier's parameters get no gradient.
    """

    by_class: ByClass
    source: str = "labelled"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        variables = {"params": params, "batch_stats": nets[SEGMENTER].stats}
        inputs = self.by_class.trained_on(rows, nets)
        logits, updated = self.by_class.segmenter.apply(variables, *inputs, train=True, mutable=["batch_stats"])
        loss = cross_entropy(logits, rows["label"])
        return loss, Out(stats={SEGMENTER: updated["batch_stats"]}, weight=total_weight(rows["label"], None))


@dataclasses.dataclass(frozen=True)
class PredictByClass:
    """Log-probabilities [B, H, W, K] of the classes that the classifier finds, and of the background (section 4.3).

    A class is there if its probability is above 0.5. One pass of the segmentation net for each gives its foreground
    M_f, and one for all together the background M_b; other classes have none, and the shares of a pixel are scaled to
    the sum of 1. An image without a class is background.

    Passes are made for the whole batch at a time, the r-th one for the r-th likeliest class of every image, and there
    are as many as the image with most classes needs: a loop whose length the data decide, so that any number of classes
    takes the memory of one and nothing is compiled anew.
    """

    by_class: ByClass

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        by_class, outputs = self.by_class, self.by_class.classes - 1
        classified = by_class.classify(nets, batch["image"])
        probabilities = jax.nn.sigmoid(classified.average)
        present = probabilities > 0.5
        count = present.sum(-1)
        order = jnp.argsort(jnp.where(present, -probabilities, 1.0), axis=-1)
        each = jnp.eye(outputs) * present[:, None]  # [B, L, L]
        labels = jnp.concatenate([each, present[:, None].astype(each.dtype)], 1)
        # Of every class: the way back through the head is cheap beside one pass, and the head itself runs once.
        saliency = by_class.saliency(nets, classified, labels, probabilities)

        def segment(saliency: jax.Array) -> jax.Array:
            variables = nets[SEGMENTER].variables
            inputs = classified.pool5, saliency, *classified.switches
            logits = by_class.segmenter.apply(variables, *inputs, train=False)
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


@dataclasses.dataclass(frozen=True)
class WindowStatistics:
    """The batch statistics of the segmentation net, the mean over so many windows of each image of a batch.

    Every layer normalises by the statistics of its own batch.
    """

    by_class: ByClass
    windows: Windows
    count: int

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        size = len(batch["image"])

        def measure(k: jax.Array) -> dict[str, jax.Array]:
            """Of one window of each image."""
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), k), size)
            rows = jax.vmap(lambda row, key: self.windows(row, key, consts))(batch, keys)
            zeros = jax.tree.map(jnp.zeros_like, nets[SEGMENTER].stats)
            variables = {"params": nets[SEGMENTER].params, "batch_stats": zeros}
            inputs = self.by_class.trained_on(rows, nets)
            _, updated = self.by_class.segmenter.apply(variables, *inputs, train=True, mutable=["batch_stats"])
            # From zero, what the running average became is this share of the batch's own statistics.
            return jax.tree.map(lambda x: x / (1 - MOMENTUM), updated["batch_stats"])

        # One at a time: as many windows as are asked for take the memory of one.
        means = jax.tree.map(lambda x: x.mean(0), jax.lax.map(measure, jnp.arange(self.count)))
        flat = traverse_util.flatten_dict(means, sep="/")
        return {name: jnp.broadcast_to(x, (size, *x.shape)) for name, x in flat.items()}


def reestimated(
    name: str, config: common.Experiment, stage: SegmentationStage, by_class: ByClass, trained: Train
) -> Infer:
    """A stage that averages the segmentation net's batch statistics over training windows (`stage.reestimate`).

    They replace the running averages of the net that `trained` left; `Artifact(stage=name, name=SEGMENTER)` is that net
    with them. As the authors' script does it, but for its factor m / (m - 1) of the variances: the mean over batches,
    every layer normalising by its own batch.
    """
    init_from = Artifact(stage=trained.name, name=SEGMENTER)
    frozen = {
        CLASSIFIER: trained.nets[CLASSIFIER],
        SEGMENTER: dataclasses.replace(trained.nets[SEGMENTER], optim=None, init_from=init_from),
    }
    windows = Windows(stage.crops, by_class.classes, by_class.background)
    return Infer(
        name=name,
        nets=frozen,
        predict=WindowStatistics(by_class, windows, stage.reestimate),
        source=common.inference_source(config, stage, ids="fine", labels=("fine",), transform=common.as_stored),
        write=Mean(into=SEGMENTER),
        per_batch=True,
    )
