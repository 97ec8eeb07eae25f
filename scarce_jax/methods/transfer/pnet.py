"""P-Net: a discriminator of masks, which learns on strong categories how a mask fits its image.

"Transferable Semi-supervised Semantic Segmentation", section "P-Net: Semantic Segmentation with Adversarial Learning".
It is shown the image times the mask of one category, so that it knows of no categories: one sample for each category
of an image, all with the same weight in the mean. The background is no sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError
from scarce_jax.losses import binary_cross_entropy, class_counts
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, TrainStage, compute_dtype
from scarce_jax.methods.segmentation import SegmentationLogits, SegmentationLoss, frequency_consts
from scarce_jax.models.pnet import PNet
from scarce_jax.ops.resize import resize_bilinear, sample_nearest
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Artifact, Net, NetState, Out, Source, Train, Turn

PNET = "pnet"
"""The role of the net that judges masks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PNetStage(TrainStage):
    """Training of P-Net on the strong images, against the frozen segmenter; images as in the segmenter's stage.

    Attributes:
      width: channels of its first convolution (16 in table 1); every layer scales with it.
      side: it sees images and masks resized to side x side; None is the segmenter's crop. The paper does not say
        which: with the crop (321) it has 53 million parameters, at the segmentation's own 41 x 41 it has 1.2 million.
        Of crops of 64 x 64 (configs/transfer_scenes.py) it had 99% of the masks right at 64, 95% at 32, 89% at 16.
      categories: samples per image: so many of its categories, the largest; of one with fewer, all.
    """

    width: int = 16
    side: int | None = None
    categories: int = 3

    def __post_init__(self):
        super().__post_init__()
        if self.categories < 1 or (self.side is not None and self.side < 8):
            raise InputError(
                f"pnet.categories is {self.categories} and pnet.side {self.side}; expected at least 1, and 8 or none"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialStage(TrainStage):
    """Training of segmenter and P-Net against each other, on all images; images and nets as in the other stages.

    Attributes:
      lambda_adv: lambda of equation 4. The paper does not say; ours, beside a mean cross-entropy, is the one of 0.01,
        0.03 and 0.1 that harmed weak categories least in trials of 150 steps with configs/transfer_scenes.py.
      pnet_optim: P-Net's optimizer; `optim` is the segmenter's.
    """

    lambda_adv: float = 0.01
    pnet_optim: Optimizer

    def __post_init__(self):
        super().__post_init__()
        if self.init_from is not None:
            raise InputError(
                f"adversarial.init_from is {self.init_from!r}; it starts from what segmenter and pnet left"
            )


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


@dataclasses.dataclass(frozen=True)
class SharedLogits:
    """The segmenter's logits as an earlier turn shared them."""

    def __call__(self, nets: Mapping[str, NetState], images: jax.Array, shared: Mapping) -> jax.Array:
        return shared["logits"]


@dataclasses.dataclass(frozen=True)
class FrozenLogits:
    """The logits of the frozen segmenter."""

    module: nn.Module

    def __call__(self, nets: Mapping[str, NetState], images: jax.Array, shared: Mapping) -> jax.Array:
        return self.module.apply(nets[SEGMENTER].variables, images, train=False)[0]


@dataclasses.dataclass(frozen=True)
class PNetLoss:
    """Equation 5: true masks are real, predicted ones are not.

    Attributes:
      logits: the segmenter's, [B, h, w, K].
    """

    judge: Judge
    logits: SharedLogits | FrozenLogits
    source: str = "labelled"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        logits = self.logits(nets, rows["image"], shared)
        real, predicted, weights = self.judge.samples(rows["image"], rows["label"], logits)
        of_real, of_predicted = self.judge({"params": params}, real, predicted)
        weights = weights.reshape(-1)
        as_real = binary_cross_entropy(of_real, 1.0, weights=weights)
        as_predicted = binary_cross_entropy(of_predicted, 0.0, weights=weights)
        metrics = {"real": as_real, "predicted": as_predicted}
        return as_real + as_predicted, Out(metrics=metrics, weight=weights.sum())


@dataclasses.dataclass(frozen=True)
class DeceivingLoss:
    """Equation 4: the segmenter's own loss, and lambda times that of a predicted mask which is not taken for real."""

    judge: Judge
    segmentation: SegmentationLoss
    lambda_adv: float

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        loss, out = self.segmentation(params, nets, batch, shared, key)
        rows = batch[self.segmentation.source]
        _, predicted, weights = self.judge.samples(rows["image"], rows["label"], out.share["logits"])
        (of_predicted,) = self.judge(nets[PNET].variables, predicted)
        deceived = binary_cross_entropy(of_predicted, 1.0, weights=weights.reshape(-1))
        if self.lambda_adv:  # Without it this is plain training, to the bit.
            loss += self.lambda_adv * deceived
        return loss, out.replace(metrics={**out.metrics, "adversarial": deceived})


def train_pnet(
    config: common.Experiment, stage: PNetStage, segmenter: SegmenterStage, module: nn.Module, judge: Judge
) -> Train:
    """Stage `pnet`: P-Net alone, on true masks of strong images and those of the segmenter that `segmenter` left."""
    common.check_unmeasured(stage, "pnet", "the P-Net predicts no class")
    images = common.image_input(segmenter.size)
    return Train(
        name="pnet",
        nets={
            SEGMENTER: common.frozen(module, (images,), "segmenter", SEGMENTER),
            PNET: common.trained(stage, judge.module, judge.inputs),
        },
        turns=(Turn(net=PNET, loss=PNetLoss(judge, FrozenLogits(module))),),
        sources={
            "labelled": common.training_source(
                config, batch=stage.batch, size=segmenter.size, augment=segmenter.augment
            )
        },
        steps=common.resolve_length(stage, "pnet"),
        accumulate=stage.accumulate,
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
    images = common.image_input(segmenter.size)
    loss = DeceivingLoss(judge, _segmentation_loss(module, segmenter), stage.lambda_adv)
    evaluation = common.evaluation_source(config, segmenter)
    return Train(
        name=name,
        nets={
            SEGMENTER: Net(
                module=module,
                inputs=(images,),
                optim=stage.optim,
                init_from=Artifact(stage="segmenter", name=SEGMENTER),
            ),
            PNET: Net(
                module=judge.module,
                inputs=judge.inputs,
                optim=stage.pnet_optim,
                init_from=Artifact(stage="pnet", name=PNET) if pretrained else None,
            ),
        },
        turns=(
            Turn(net=SEGMENTER, loss=loss),
            Turn(net=PNET, loss=PNetLoss(judge, SharedLogits())),
        ),
        sources={"labelled": dataclasses.replace(labelled, batch=stage.batch)},
        steps=common.resolve_length(stage, name),
        accumulate=stage.accumulate,
        evals=common.during_training(config, stage, SegmentationLogits(module), evaluation),
        consts=frequency_consts(segmenter),
        keys_as="adversarial",
    )


def _segmentation_loss(module: nn.Module, segmenter: SegmenterStage) -> SegmentationLoss:
    return SegmentationLoss(module=module, aux_weight=segmenter.aux_weight, class_weighting=segmenter.class_weighting)


def without_pnet(stage: Train, segmenter: SegmenterStage) -> Train:
    """A stage of `train_adversarial` with lambda = 0, without the P-Net, which does not change the segmenter then.

    The segmenter is the same to the bit; a step of configs/transfer_scenes.py takes half as long.
    """
    net = stage.nets[SEGMENTER]
    loss = _segmentation_loss(net.module, segmenter)
    return dataclasses.replace(stage, nets={SEGMENTER: net}, turns=(Turn(net=SEGMENTER, loss=loss),))
