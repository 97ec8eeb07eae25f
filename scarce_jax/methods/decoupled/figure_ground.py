"""Segmentation of one class at a time: a frozen classifier finds the classes, and a net segments each of them.

Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation", sections 4.2, 4.3 and 5.
Details that the paper omits follow the authors' published inference code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from scarce_jax.losses import cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SizedStage
from scarce_jax.methods.inputs import as_stored, evaluation_source, image_input, inference_source
from scarce_jax.methods.segmentation import total_weight
from scarce_jax.methods.tagging import CLASSIFIER
from scarce_jax.models.batch_norm import MOMENTUM
from scarce_jax.models.decoupled import Classified, DecoupledClassifier, SegmentationNet, class_saliency
from scarce_jax.ops.combinatorial import Combinatorial, SubsetDraws, crop_subset
from scarce_jax.ranges import Channels, CountOrZero, Few
from scarce_jax.recipe import Artifact, Infer, Mean, Net, NetState, Out, Train, Turn

FLOOR = 1e-6
"""Least probability of a class, so that its logarithm is finite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationStage(SizedStage):
    """Settings of the training of bridging layers and deconvolution net on the few masks.

    The training examples are windows of the images. An epoch has N_p windows (`crops.windows`) of each non-empty subset
    of an image's classes.

    Attributes:
      crops: settings of the windows. Masks are predicted at the size `crops.crop`.
      width: channels of the last deconvolution, with which the others scale; None is 64 at the backbone's full width,
        as in the paper. VGG-16 takes only None, because its switches fix the channels.
      hidden: channels of fc6-seg and fc7-seg; None is 32 * width on VGG-16, and 8 * width on a ResNet.
      deconvolutions: number of deconvolutions in groups 1 to 5, at least 1; None is that of VGG-16's convolutions, and
        2, 2, 3, 3, 3 on a ResNet.
      reestimate: number of windows of each image over which batch statistics are averaged after the training, as the
        authors do before inference; 0 keeps the running averages.
    """

    crops: Combinatorial
    width: Channels | None = None
    hidden: Channels | None = None
    deconvolutions: tuple[Few, Few, Few, Few, Few] | None = None
    reestimate: CountOrZero = 0


@dataclasses.dataclass(frozen=True)
class ByClass:
    """The two nets of the method.

    Attributes:
      classes: number of classes, K, with the background.
      background: id of the background. The classifier has one output for each other class, in their order.
    """

    classifier: DecoupledClassifier
    segmenter: SegmentationNet
    classes: int
    background: int

    def classify(self, nets: Mapping[str, NetState], images: jax.Array) -> Classified:
        """Outputs of the frozen classifier, without a gradient."""
        classified = self.classifier.apply(nets[CLASSIFIER].variables, images, method="classify")
        return jax.lax.stop_gradient(classified)

    def saliency(
        self,
        nets: Mapping[str, NetState],
        classified: Classified,
        labels: jax.Array,
        probabilities: jax.Array | None = None,
    ) -> jax.Array:
        """`class_saliency` of L label vectors per image, without a gradient: [B, L, K - 1] -> [B, L, h, w, C]."""
        variables = nets[CLASSIFIER].variables
        saliency = class_saliency(self.classifier, variables, classified.pool5, labels, probabilities)
        return jax.lax.stop_gradient(saliency)

    def trained_on(self, rows: Mapping[str, jax.Array], nets: Mapping[str, NetState]) -> tuple[jax.Array, ...]:
        """Inputs of the segmentation net for training windows, with the saliency of their subsets of classes."""
        classified = self.classify(nets, rows["image"])
        labels = jnp.delete(rows["subset"], self.background, axis=-1).astype(jnp.float32)
        return classified.pool5, self.saliency(nets, classified, labels[:, None])[:, 0], *classified.switches


def inputs(by_class: ByClass, crop: tuple[int, int]) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Abstract inputs of the segmentation net for images of the size `crop`: pool5, its saliency and any switches."""

    def classify(key: jax.Array, image: jax.Array) -> Classified:
        return by_class.classifier.init_with_output(key, image, method="classify")[0]

    classified = jax.eval_shape(classify, jax.random.key(0), image_input(crop))
    return classified.pool5, classified.pool5, *classified.switches


def train_segmentation(
    name: str, config: common.Experiment, stage: SegmentationStage, by_class: ByClass, classifier: Net
) -> Train:
    """A stage that trains the segmentation net with the frozen classifier."""
    crop = stage.crops.crop
    labelled = inference_source(
        config,
        stage,
        ids="fine",
        labels=("fine",),
        batch=stage.batch,
        transform=Windows(stage.crops, by_class.classes, by_class.background),
        weight=SubsetDraws(stage.crops.windows),
    )
    return common.train(
        name,
        config,
        stage,
        nets={CLASSIFIER: classifier, SEGMENTER: common.trained(stage, by_class.segmenter, inputs(by_class, crop))},
        turns=(Turn(net=SEGMENTER, loss=FigureLoss(by_class)),),
        sources={"labelled": labelled},
        predict=PredictByClass(by_class),
        source=evaluation_source(config, stage, size=crop),
    )


@dataclasses.dataclass(frozen=True)
class Windows:
    """Transform of a training source: cuts a window around a random subset of the image's classes."""

    crops: Combinatorial
    classes: int
    background: int

    def __call__(self, row: dict, key: jax.Array, consts: Mapping) -> dict:
        return crop_subset(row, key, self.crops, self.classes, self.background)


@dataclasses.dataclass(frozen=True)
class FigureLoss:
    """Equation 2: mean softmax cross-entropy of figure and ground, over the pixels that are not void.

    The parameters of the classifier get no gradient.
    """

    by_class: ByClass
    source: str = "labelled"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        inputs = self.by_class.trained_on(rows, nets)
        segmenter = self.by_class.segmenter
        logits, stats = common.apply_in_training(segmenter, params, nets[SEGMENTER], *inputs, key=key)
        loss = cross_entropy(logits, rows["label"])
        return loss, Out(batch_stats={SEGMENTER: stats}, weight=total_weight(rows["label"]))


@dataclasses.dataclass(frozen=True)
class MapsByClass:
    """Maps [B, H, W, K] in 0..1 of the classes that the classifier finds, and of the background (section 4.3).

    An image has a class if the classifier's probability is above 0.5. One pass of the segmentation net per class gives
    its foreground M_f, and one pass for all of them together gives the background M_b. The maps of other classes are
    zero. The background of an image without a class is one everywhere.

    Each pass is for the whole batch: the r-th pass is for the r-th most probable class of each image. The number of
    passes is the largest number of classes in an image, in a loop whose length is known only at run time. So the memory
    is that of one class, and nothing is compiled again for another number.
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
        # For all classes at once: the head runs once, and its backward pass is cheap compared with one pass of the net.
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
        # Computed from `ground`, so that under `shard_map` it varies over devices as the values that are added do.
        nothing = ground[..., None] * jnp.zeros(outputs)
        figures = jax.lax.fori_loop(0, count.max(), add, nothing)
        before, after = figures[..., : by_class.background], figures[..., by_class.background :]
        return jnp.concatenate([before, ground[..., None], after], -1)  # [B, H, W, K]


@dataclasses.dataclass(frozen=True)
class PredictByClass:
    """Log-probabilities [B, H, W, K]: `MapsByClass`, normalised to a sum of 1 over the classes of a pixel."""

    by_class: ByClass

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> jax.Array:
        scores = MapsByClass(self.by_class)(nets, batch, consts)
        return jnp.log(jnp.maximum(scores / jnp.maximum(scores.sum(-1, keepdims=True), FLOOR), FLOOR))


@dataclasses.dataclass(frozen=True)
class WindowStatistics:
    """Batch statistics of the segmentation net, averaged over `count` windows of each image of a batch.

    Each layer normalises by the statistics of its own batch.
    """

    by_class: ByClass
    windows: Windows
    count: int

    def __call__(self, nets: Mapping[str, NetState], batch: dict, consts: Mapping) -> dict[str, jax.Array]:
        size = len(batch["image"])

        def measure(k: jax.Array) -> dict[str, jax.Array]:
            """Batch statistics of the k-th window of each image."""
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), k), size)
            rows = jax.vmap(lambda row, key: self.windows(row, key, consts))(batch, keys)
            zeros = jax.tree.map(jnp.zeros_like, nets[SEGMENTER].batch_stats)
            variables = {"params": nets[SEGMENTER].params, "batch_stats": zeros}
            inputs = self.by_class.trained_on(rows, nets)
            _, updated = self.by_class.segmenter.apply(variables, *inputs, train=True, mutable=["batch_stats"])
            # A running average that starts from zero is (1 - MOMENTUM) times the statistics of the first batch.
            return jax.tree.map(lambda x: x / (1 - MOMENTUM), updated["batch_stats"])

        # A loop rather than `vmap`, so that any number of windows takes the memory of one.
        means = jax.tree.map(lambda x: x.mean(0), jax.lax.map(measure, jnp.arange(self.count)))
        flat = traverse_util.flatten_dict(means, sep="/")
        return {name: jnp.broadcast_to(x, (size, *x.shape)) for name, x in flat.items()}


def reestimated(
    name: str, config: common.Experiment, stage: SegmentationStage, by_class: ByClass, trained: Train
) -> Infer:
    """A stage that averages batch statistics over `stage.reestimate` training windows of each image.

    The averages replace the running averages of the net that `trained` left. `Artifact(stage=name, name=SEGMENTER)` is
    the net with them. The authors' script does the same. Its factor m / (m - 1) of the variances, for m values of a
    feature in a batch, is 1: it divides whole numbers in Python 2.
    """
    init_from = Artifact(stage=trained.name, name=SEGMENTER)
    segmenter = dataclasses.replace(trained.nets[SEGMENTER], optim=None, init_from=init_from)
    windows = Windows(stage.crops, by_class.classes, by_class.background)
    return Infer(
        name=name,
        nets={**trained.nets, SEGMENTER: segmenter},
        predict=WindowStatistics(by_class, windows, stage.reestimate),
        source=inference_source(config, stage, ids="fine", labels=("fine",), transform=as_stored),
        write=Mean(into=SEGMENTER),
        per_batch=True,
    )
