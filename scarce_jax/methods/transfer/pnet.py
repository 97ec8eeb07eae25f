"""The P-Net: its training, and the segmenter's training against it.

"Transferable Semi-supervised Semantic Segmentation", section "P-Net: Semantic Segmentation with Adversarial Learning".
The P-Net judges whether a mask fits its image. Its input is the image times the mask of one category, so it does not
depend on the set of categories. Each category of an image gives one sample, all samples of a kind have the same weight,
and the background gives none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
from annotated_types import Interval

from scarce_jax.losses import binary_cross_entropy
from scarce_jax.methods import common
from scarce_jax.methods.common import SEGMENTER, SegmenterStage, TrainStage
from scarce_jax.methods.inputs import evaluation_source, net_inputs, training_source
from scarce_jax.methods.segmentation import SegmentationLogits, SegmentationLoss, frequency_consts, segmentation_loss
from scarce_jax.methods.transfer.pnet_masks import Mask, PNetJudge
from scarce_jax.optim import Optimizer
from scarce_jax.ranges import Few, NonNegative, Width
from scarce_jax.recipe import Artifact, Net, NetState, Out, Source, Train, Turn

PNET = "pnet"
"""Role of the P-Net."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PNetStage(TrainStage):
    """Settings of the P-Net's training on the strong images, against the frozen segmenter.

    Size and augmentation of the images are those of the segmenter.

    Shares of masks that the P-Net took for true, of 200 held-out images with the config transfer_scenes (seed 0, 300
    steps in place of 100), strong / weak as in the table `pnet`. "shown" are the predicted masks that it learned from:

    | mask, mismatched | true | shown | of another image | shifted by a fifth |
    |---|---|---|---|---|
    | soft | 1.00 / 0.99 | 0.01 / 0.03 | 0.96 / 0.98 | 1.00 / 1.00 |
    | hard | 0.77 / 0.87 | 0.28 / 0.32 | 0.93 / 0.94 | 0.88 / 0.92 |
    | hard, mismatched | 0.81 / 0.72 | 0.45 / 0.41 | 0.29 / 0.28 | 0.39 / 0.47 |

    The first P-Net goes by softness: it took 0.73 / 0.64 of the same predictions for true where they were shown as hard
    masks. Only the last one refuses most true masks that are wrong for their image.

    Attributes:
      width: channels of the first convolution (16 in table 1); all layers scale with it.
      side: images and masks are resized to side x side pixels, at least 8; None keeps the segmenter's crop. The paper
        does not specify it: with its crop of 321 the P-Net has 53 million parameters, at the 41 x 41 of its
        segmentation 1.2 million.
      categories: largest number of samples per image. The categories with most pixels are taken.
      mask: predicted masks that the P-Net is shown: "soft" shows the probabilities of a category, "hard" the pixels in
        which it is the largest, with the gradient of the probabilities (straight through), and "scaled" the
        probabilities, beside true masks that are as soft (Luc et al., 2016). The paper multiplies the image by "the
        predicted segmentation mask", which in its equations is the output of the net.
      mismatched: beyond the paper, also learn that true masks of another image of the batch are no masks of this one,
        as the matching-aware discriminator of Reed et al. (2016) does with texts. They and the predicted masks have
        half the weight of the true ones each. The settings `mask`, `mismatched` and `false_positives` hold in the
        stage `adversarial`, too.
      false_positives: beyond the paper, also show categories that are predicted, but not in the label. They have no
        true mask. All are ordered by their pixels.
    """

    width: Width = 16
    side: Annotated[int, Interval(ge=8, le=2**14)] | None = None
    categories: Few = 3
    mask: Mask = "soft"
    mismatched: bool = False
    false_positives: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversarialStage(TrainStage):
    """Settings of the training of segmenter and P-Net against each other, on all images.

    Size and augmentation of the images are those of the segmenter.

    Attributes:
      lambda_adv: lambda of equation 4, weight of the adversarial loss. The paper does not specify it. No gain was
        measured: in trials of 150 steps with the config transfer_scenes (seed 0) the weak categories had an mIoU of
        0.225 at 0, and 0.224 to 0.225 at the default, with each of the masks in the table of `PNetStage`. Above the
        default, at 0.03 and 0.1, they lost with soft masks.
      truths: images from which the P-Net learns: "all", where label maps count as true, as in the paper, or "strong",
        those with true masks. Then it reads a batch of its own, which the segmenter predicts as in evaluation.
      pnet_optim: optimizer of the P-Net; `optim` is that of the segmenter.
    """

    lambda_adv: NonNegative = 0.01
    truths: Literal["all", "strong"] = "all"
    pnet_optim: Optimizer

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.init_from is not None:
            yield "init_from", "None, because it starts from the nets of the stages segmenter and pnet"


@dataclasses.dataclass(frozen=True)
class PNetLoss:
    """Equation 5: cross-entropy of true against predicted masks, and against the judge's further fakes.

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
        masks = self.judge.masks(rows["image"], rows["label"], logits)
        true = self.judge.true(masks)
        judged, fakes = [true, self.judge.predicted(masks)], {"predicted": masks.shown}
        if self.judge.mismatched:
            other, fakes["mismatched"] = masks.mismatched(true)
            judged.append(other)
        of_true, *of_fakes = self.judge({"params": params}, masks, *judged)
        metrics = {"real": binary_cross_entropy(of_true, 1.0, weights=masks.labelled)}
        metrics |= {
            name: binary_cross_entropy(of_fake, 0.0, weights=weights)
            for (name, weights), of_fake in zip(fakes.items(), of_fakes, strict=True)
        }
        loss = metrics["real"] + sum(metrics[name] for name in fakes) / len(fakes)
        return loss, Out(metrics=metrics, weight=masks.labelled.sum())


@dataclasses.dataclass(frozen=True)
class DeceivingLoss:
    """Equation 4: the segmenter's loss plus lambda times the loss of predicted masks that the P-Net takes for true."""

    judge: PNetJudge
    segmentation: SegmentationLoss
    lambda_adv: float

    def __call__(self, params: Any, nets: Mapping[str, NetState], batch: dict, shared: dict, key: jax.Array):
        loss, out = self.segmentation(params, nets, batch, shared, key)
        rows = batch[self.segmentation.source]
        masks = self.judge.masks(rows["image"], rows["label"], out.share["logits"])
        (of_predicted,) = self.judge(nets[PNET].variables, masks, self.judge.predicted(masks))
        deceived = binary_cross_entropy(of_predicted, 1.0, weights=masks.shown)
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
        sources={"labelled": training_source(config, segmenter, batch=stage.batch)},
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
    # The P-Net reads the images themselves, so none of their features are kept.
    sources = {"labelled": dataclasses.replace(labelled, batch=stage.batch, cache=None)}
    judging = PNetLoss(judge)
    if stage.truths == "strong":
        sources["strong"] = training_source(config, segmenter, batch=stage.batch)
        judging = PNetLoss(judge, module, source="strong")
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
        turns=(Turn(net=SEGMENTER, loss=loss), Turn(net=PNET, loss=judging)),
        sources=sources,
        predict=SegmentationLogits(module),
        source=evaluation_source(config, segmenter),
        consts=frequency_consts(segmenter),
        keys_as="adversarial",
    )
