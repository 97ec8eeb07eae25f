"""P-Net: a discriminator of masks, which learns on strong categories how a mask fits its image.

"Transferable Semi-supervised Semantic Segmentation", section "P-Net: Semantic Segmentation with Adversarial Learning".
It is shown the image times the mask of one category, so that it knows of no categories: one sample for each category
of an image, all with the same weight in the mean. The background is no sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError
from scarce_jax.losses import binary_cross_entropy, class_counts
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage
from scarce_jax.methods.networks import compute_dtype
from scarce_jax.models.pnet import PNet
from scarce_jax.ops.resize import resize_bilinear, sample_nearest
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Artifact, Loss, Net, NetState, Out, Source, Train, Turn, interned

PNET = "pnet"
"""The role of the net that judges masks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PNetStage:
    """Training of P-Net on the strong images, against the frozen segmenter; images as in the segmenter's stage.

    Attributes:
      steps, epochs: length of training, exactly one of them.
      batch: images per step over all devices.
      width: channels of its first convolution (16 in table 1); every layer scales with it.
      side: it sees images and masks resized to side x side; None is the segmenter's crop. The paper does not say
        which: with the crop (321) it has 53 million parameters, at the segmentation's own 41 x 41 it has 1.2 million.
        Of crops of 64 x 64 (configs/transfer_scenes.py) it told 99% of the masks right at 64, 95% at 32, 89% at 16.
      categories: samples per image: so many of its categories, the largest; of one with fewer, all.
      eval_batch: images per device when its judgement is measured.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int
    width: int = 16
    side: int | None = None
    categories: int = 3
    optim: Optimizer
    eval_batch: int = 4

    def __post_init__(self):
        if self.categories < 1 or (self.side is not None and self.side < 8):
            raise InputError(
                f"pnet.categories is {self.categories} and pnet.side {self.side}; expected at least 1, and 8 or none"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialStage:
    """Training of segmenter and P-Net against each other, on all images; images and nets as in the other stages.

    Attributes:
      steps, epochs: length of training, exactly one of them.
      batch: images per step over all devices.
      lambda_adv: lambda of equation 4. The paper does not say; ours, beside a mean cross-entropy, is the one of 0.01,
        0.03 and 0.1 that harmed weak categories least in trials of 150 steps with configs/transfer_scenes.py.
      optim: the segmenter's optimizer.
      pnet_optim: P-Net's.
      eval_every: steps between measurements on the evaluation split while training; 0 measures the result alone.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int
    lambda_adv: float = 0.01
    optim: Optimizer
    pnet_optim: Optimizer
    eval_every: int = 0


@dataclasses.dataclass(frozen=True)
class Judge:
    """P-Net and what it is shown.

    Attributes:
      size: (height, width) of its input.
      categories: samples per image.
      background: class that is no sample.
    """

    module: PNet
    size: tuple[int, int]
    categories: int
    background: int

    @property
    def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        return (common.image_input(self.size),)

    def samples(
        self, images: jax.Array, labels: jax.Array, logits: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The image times the true, and times the predicted mask, of each category that the label has.

        A void pixel is zero in both, or it would give the predicted masks away.

        Args:
          images: float [B, H, W, 3], normalised.
          labels: uint8 [B, H, W], class ids or 255.
          logits: floating [B, h, w, K].

        Returns:
          real and predicted float32 [B * N, *size, 3], and weights float32 [B, N]: 0 for a sample that is none.
        """
        images = resize_bilinear(images, self.size, align_corners=True)
        labels = sample_nearest(labels, self.size)
        logits = resize_bilinear(logits.astype(jnp.float32), self.size, align_corners=True)
        counts = class_counts(labels, logits.shape[-1]).at[:, self.background].set(-1)
        pixels, chosen = jax.lax.top_k(counts, min(self.categories, logits.shape[-1] - 1))  # [B, N]
        real = labels[:, None] == chosen[:, :, None, None]  # [B, N, H, W]
        # A product instead of a gather, whose gradient would be a scatter.
        which = jax.nn.one_hot(chosen, logits.shape[-1])
        predicted = jnp.einsum("bhwk,bnk->bnhw", jax.nn.softmax(logits), which, precision=jax.lax.Precision.HIGHEST)
        predicted *= (labels != IGNORE)[:, None]
        masked = (images[:, None] * mask[..., None] for mask in (real, predicted))
        flat = (x.reshape(-1, *x.shape[2:]) for x in masked)
        return *flat, (pixels > 0).astype(jnp.float32)

    def __call__(self, variables: Mapping, *masked: jax.Array) -> list[jax.Array]:
        """Logits [B * N] of each batch of masked images."""
        return jnp.split(self.module.apply(variables, jnp.concatenate(masked), train=True), len(masked))


def make_judge(config: common.Experiment, stage: PNetStage, segmenter: SegmenterStage, background: int) -> Judge:
    """The judge of a config."""
    size = segmenter.augment.crop if stage.side is None else (stage.side, stage.side)
    return Judge(PNet(width=stage.width, dtype=compute_dtype(config)), size, stage.categories, background)


@interned
def discriminator_loss(judge: Judge, source: str, logits: Callable) -> Loss:
    """Equation 5: true masks are real, predicted ones are not.

    Args:
      logits: `(nets, images, shared) -> [B, h, w, K]`, the segmenter's.
    """

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[source]
        real, predicted, weights = judge.samples(rows["image"], rows["label"], logits(nets, rows["image"], shared))
        of_real, of_predicted = judge({"params": params}, real, predicted)
        weights = weights.reshape(-1)
        as_real = binary_cross_entropy(of_real, 1.0, weights=weights)
        as_predicted = binary_cross_entropy(of_predicted, 0.0, weights=weights)
        return as_real + as_predicted, Out(metrics={"real": as_real, "predicted": as_predicted})

    return loss


@interned
def generator_loss(judge: Judge, source: str, segmentation: Loss, lambda_adv: float) -> Loss:
    """Equation 4: the segmenter's own loss, and lambda times that of a predicted mask which is not taken for real."""

    def loss(params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        value, out = segmentation(params, nets, batch, shared, key)
        rows = batch[source]
        _, predicted, weights = judge.samples(rows["image"], rows["label"], out.share["logits"])
        (judged,) = judge(nets[PNET].variables, predicted)
        deceived = binary_cross_entropy(judged, 1.0, weights=weights.reshape(-1))
        if lambda_adv:  # Without it this is plain training, to the bit.
            value += lambda_adv * deceived
        return value, out.replace(metrics={**out.metrics, "adversarial": deceived})

    return loss


def _shared_logits(nets: Mapping[str, NetState], images: jax.Array, shared: Mapping) -> jax.Array:
    return shared["logits"]


def train_pnet(
    config: common.Experiment, stage: PNetStage, segmenter: SegmenterStage, module: nn.Module, judge: Judge
) -> Train:
    """Stage `pnet`: P-Net alone, on true masks of strong images and those of the segmenter that `segmenter` left."""

    def logits(nets: Mapping[str, NetState], images: jax.Array, shared: Mapping) -> jax.Array:
        return module.apply(nets[SEGMENTER].variables, images, train=False)[0]

    init = Artifact(stage="segmenter", name=SEGMENTER)
    return Train(
        name="pnet",
        nets={
            SEGMENTER: Net(module=module, inputs=(common.image_input(segmenter.size),), init_from=init),
            PNET: Net(module=judge.module, inputs=judge.inputs, optim=stage.optim),
        },
        turns=(Turn(net=PNET, loss=discriminator_loss(judge, "labelled", logits)),),
        sources={
            "labelled": common.training_source(
                config, batch=stage.batch, size=segmenter.size, augment=segmenter.augment
            )
        },
        steps=common.length(stage, "pnet"),
        settings={"stage": stage, "size": segmenter.size, "augment": segmenter.augment},
    )


def train_adversarial(
    name: str,
    config: common.Experiment,
    stage: AdversarialStage,
    segmenter: SegmenterStage,
    module: nn.Module,
    judge: Judge,
    labelled: Source,
    *,
    pretrained: bool = True,
) -> Train:
    """A stage in which segmenter and P-Net go on from what `segmenter` and `pnet` left, against each other.

    The segmenter's turn comes first: it then draws as plain training does, and P-Net's needs no second pass of it.

    Args:
      labelled: the images and labels that the segmenter was trained on.
      pretrained: False draws P-Net's initial values.
    """
    segmentation = common.segmentation_loss(module, ("image",), segmenter.aux_weight, "labelled")
    init = Artifact(stage="segmenter", name=SEGMENTER)
    fields = {field.name: getattr(stage, field.name) for field in dataclasses.fields(stage)}
    return Train(
        name=name,
        nets={
            SEGMENTER: Net(
                module=module, inputs=(common.image_input(segmenter.size),), optim=stage.optim, init_from=init
            ),
            PNET: Net(
                module=judge.module,
                inputs=judge.inputs,
                optim=stage.pnet_optim,
                init_from=Artifact(stage="pnet", name=PNET) if pretrained else None,
            ),
        },
        turns=(
            Turn(net=SEGMENTER, loss=generator_loss(judge, "labelled", segmentation, stage.lambda_adv)),
            Turn(net=PNET, loss=discriminator_loss(judge, "labelled", _shared_logits)),
        ),
        sources={"labelled": dataclasses.replace(labelled, batch=stage.batch)},
        steps=common.length(stage, name),
        settings={
            **fields,
            "eval_every": 0,
            "size": segmenter.size,
            "augment": segmenter.augment,
            "aux_weight": segmenter.aux_weight,
            "categories": judge.categories,
            "input": judge.size,
        },
        evals=common.during_training(
            config,
            dataclasses.replace(segmenter, eval_every=stage.eval_every),
            common.segmentation_predict(module, ("image",)),
        ),
        keys_as="adversarial",
    )


def without_pnet(stage: Train, segmenter: SegmenterStage) -> Train:
    """A stage of `train_adversarial` with lambda = 0 without P-Net's turn, which moves nothing that is measured then.

    The segmenter is the same to the bit; a step of configs/transfer_scenes.py takes half as long.
    """
    net = stage.nets[SEGMENTER]
    loss = common.segmentation_loss(net.module, ("image",), segmenter.aux_weight, "labelled")
    return dataclasses.replace(stage, nets={SEGMENTER: net}, turns=(Turn(net=SEGMENTER, loss=loss),))
