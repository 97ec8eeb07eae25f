"""The P-Net: its training, and the segmenter's training against it.

"Transferable Semi-supervised Semantic Segmentation", section "P-Net: Semantic Segmentation with Adversarial Learning".
The P-Net judges whether a mask fits its image. Its input is the image times the mask of one category, so it does not
depend on the set of categories. Each category of an image gives one sample, all samples have the same weight, and the
background gives none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Interval

from scarce_jax.data.schema import IGNORE
from scarce_jax.losses import binary_cross_entropy, class_counts
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, TrainStage, net_inputs
from scarce_jax.methods.segmentation import SegmentationLogits, SegmentationLoss, frequency_consts, segmentation_loss
from scarce_jax.models.pnet import PNet
from scarce_jax.ops.logits import Logits, full_size
from scarce_jax.ops.resize import resize_bilinear, sample_nearest
from scarce_jax.optim import Optimizer
from scarce_jax.ranges import Few, NonNegative, Width
from scarce_jax.recipe import Artifact, Net, NetState, Out, Source, Train, Turn

PNET = "pnet"
"""Role of the P-Net."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PNetStage(TrainStage):
    """Settings of the P-Net's training on the strong images, against the frozen segmenter.

    Size and augmentation of the images are those of the segmenter.

    Attributes:
      width: channels of the first convolution (16 in table 1); all layers scale with it.
      side: images and masks are resized to side x side pixels, at least 8; None keeps the segmenter's crop. The paper
        does not specify it: with its crop of 321 the P-Net has 53 million parameters, at the 41 x 41 of its
        segmentation 1.2 million. With crops of 64 x 64 (configs/transfer_scenes.py) the P-Net judged 99% of the masks
        correctly at side 64, 95% at 32 and 89% at 16.
      categories: largest number of samples per image. The categories with most pixels are taken.
    """

    width: Width = 16
    side: Annotated[int, Interval(ge=8, le=2**14)] | None = None
    categories: Few = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialStage(TrainStage):
    """Settings of the training of segmenter and P-Net against each other, on all images.

    Size and augmentation of the images are those of the segmenter.

    Attributes:
      lambda_adv: lambda of equation 4, weight of the adversarial loss. The paper does not specify it. Of 0.01, 0.03 and
        0.1 the default harmed the weak categories least, in trials of 150 steps with configs/transfer_scenes.py.
      pnet_optim: optimizer of the P-Net; `optim` is that of the segmenter.
    """

    lambda_adv: NonNegative = 0.01
    pnet_optim: Optimizer

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.init_from is not None:
            yield "init_from", "None, because it starts from the nets of the stages segmenter and pnet"


@dataclasses.dataclass(frozen=True)
class PNetJudge:
    """The P-Net and its inputs.

    Attributes:
      size: (height, width) of its inputs.
      categories: samples per image.
      background: id of the class that gives no sample.
    """

    module: PNet
    size: tuple[int, int]
    categories: int
    background: int

    @property
    def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Abstract inputs of the P-Net."""
        return net_inputs(self.size)

    def samples(self, images: jax.Array, labels: jax.Array, logits: Logits) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The image times the true mask, and times the predicted mask, of N categories that the label shows.

        Void pixels are zero in both. Otherwise they would reveal which masks are predicted.

        Args:
          images: float [B, H, W, 3], normalised.
          labels: uint8 [B, H, W], class ids or 255.
          logits: floating [B, h, w, K].

        Returns:
          True and predicted samples, float32 [B * N, *size, 3], and their weights, float32 [B, N]: 1, or 0 where the
          image has fewer than N categories.
        """
        images = resize_bilinear(images, self.size, align_corners=True)
        labels = sample_nearest(labels, self.size)
        logits = resize_bilinear(full_size(logits), self.size, align_corners=True)
        counts = class_counts(labels, logits.shape[-1]).at[:, self.background].set(-1)
        pixels, chosen = jax.lax.top_k(counts, min(self.categories, logits.shape[-1] - 1))  # [B, N]
        real = labels[:, None] == chosen[:, :, None, None]  # [B, N, H, W]
        # A product, because the gradient of a gather would be a scatter.
        which = jax.nn.one_hot(chosen, logits.shape[-1])
        predicted = jnp.einsum("bhwk,bnk->bnhw", jax.nn.softmax(logits), which, precision=jax.lax.Precision.HIGHEST)
        predicted *= (labels != IGNORE)[:, None]
        masked = (images[:, None] * mask[..., None] for mask in (real, predicted))  # [B, N, H, W, 3]
        flat = (x.reshape(-1, *x.shape[2:]) for x in masked)  # [B * N, H, W, 3]
        return *flat, (pixels > 0).astype(jnp.float32)

    def __call__(self, variables: Mapping, *masked: jax.Array) -> list[jax.Array]:
        """Logits [B * N] of each array of samples."""
        return jnp.split(self.module.apply(variables, jnp.concatenate(masked), train=True), len(masked))


@dataclasses.dataclass(frozen=True)
class PNetLoss:
    """Equation 5: cross-entropy of true against predicted masks.

    Attributes:
      frozen: the segmenter, which predicts the masks; None takes the "logits" that an earlier turn shared.
      source: name of the source that the loss reads.
    """

    judge: PNetJudge
    frozen: nn.Module | None = None
    source: str = "labelled"

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        rows = batch[self.source]
        if self.frozen is None:
            logits = shared["logits"]
        else:
            logits, _ = self.frozen.apply(nets[SEGMENTER].variables, rows["image"], train=False)
        real, predicted, weights = self.judge.samples(rows["image"], rows["label"], logits)
        of_real, of_predicted = self.judge({"params": params}, real, predicted)
        weights = weights.reshape(-1)  # [B, N] -> [B * N]
        as_real = binary_cross_entropy(of_real, 1.0, weights=weights)
        as_predicted = binary_cross_entropy(of_predicted, 0.0, weights=weights)
        metrics = {"real": as_real, "predicted": as_predicted}
        return as_real + as_predicted, Out(metrics=metrics, weight=weights.sum())


@dataclasses.dataclass(frozen=True)
class DeceivingLoss:
    """Equation 4: the segmenter's loss plus lambda times the loss of predicted masks that the P-Net takes for true."""

    judge: PNetJudge
    segmentation: SegmentationLoss
    lambda_adv: float

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        loss, out = self.segmentation(params, nets, batch, shared, key)
        rows = batch[self.segmentation.source]
        _, predicted, weights = self.judge.samples(rows["image"], rows["label"], out.share["logits"])
        (of_predicted,) = self.judge(nets[PNET].variables, predicted)
        deceived = binary_cross_entropy(of_predicted, 1.0, weights=weights.reshape(-1))
        if self.lambda_adv:  # With lambda = 0 the training is bit for bit that of the segmenter alone.
            loss += self.lambda_adv * deceived
        return loss, out.replace(metrics={**out.metrics, "adversarial": deceived})


def train_pnet(
    config: common.Experiment, stage: PNetStage, segmenter: SegmenterStage, module: nn.Module, judge: PNetJudge
) -> Train:
    """Stage `pnet`: trains the P-Net on true masks of the strong images and on masks of the trained segmenter.

    Raises:
      InputError: `eval_every` is set.
    """
    return common.train(
        "pnet",
        config,
        stage,
        nets={
            SEGMENTER: common.frozen(module, net_inputs(segmenter.size), "segmenter", SEGMENTER),
            PNET: common.trained(stage, judge.module, judge.inputs),
        },
        turns=(Turn(net=PNET, loss=PNetLoss(judge, module)),),
        sources={"labelled": common.training_source(config, segmenter, batch=stage.batch)},
    )


def train_adversarial(
    config: common.Experiment,
    stage: AdversarialStage,
    segmenter: SegmenterStage,
    module: nn.Module,
    judge: PNetJudge,
    labelled: Source,
) -> Train:
    """Stage `adversarial`: trains the nets of the stages `segmenter` and `pnet` against each other.

    The segmenter's turn is first. It then uses the same random keys as training without the P-Net, and the P-Net's turn
    reads the logits that it shared.

    Args:
      labelled: images and labels of the segmenter's training.
    """
    loss = DeceivingLoss(judge, segmentation_loss(module, segmenter), stage.lambda_adv)
    nets = {
        SEGMENTER: Net(
            module=module,
            inputs=net_inputs(segmenter.size),
            optim=common.with_backbone(stage.optim, segmenter),
            init_from=Artifact(stage="segmenter", name=SEGMENTER),
        ),
        PNET: Net(
            module=judge.module,
            inputs=judge.inputs,
            optim=stage.pnet_optim,
            init_from=Artifact(stage="pnet", name=PNET),
        ),
    }
    return common.train(
        "adversarial",
        config,
        stage,
        nets=nets,
        turns=(Turn(net=SEGMENTER, loss=loss), Turn(net=PNET, loss=PNetLoss(judge))),
        sources={"labelled": dataclasses.replace(labelled, batch=stage.batch)},
        predict=SegmentationLogits(module),
        source=common.evaluation_source(config, segmenter),
        consts=frequency_consts(segmenter),
        keys_as="adversarial",
    )
