"""Label and prediction transfer on PASCAL VOC 2012, split-set 1: ten strong and ten weak categories.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(b). `paper` has its figures, mIoU on
val.

The paper specifies the nets, crop, batch size and epochs of the L-Net, and its learning rate of 5e-8 for a loss summed
over 321 x 321 pixels, which is 5e-8 * 321^2 for the mean. It trains the segmenter as DeepLab-LargeFOV (Chen et al.,
2015), and specifies learning rates and epochs of `adversarial`. As there, crops are of images at their native size,
and masks are predicted of whole images at their native size, padded to 513 x 513. Ours are the training of `cam` and
`pnet`, lambda, and the size of the P-Net's masks. It is that of the segmenter's logits: at 321 x 321 they would have
smoother outlines than true masks, whatever the segmenter learns. This config was not run.

ImageNet weights are downloaded. `--cam.init-from`, `--lnet.init-from` and `--segmenter.init-from` take a file instead.

Command: scarce-jax prepare voc --source VOC; scarce-jax train configs/transfer_voc_split1.py --compare
"""

import dataclasses
from typing import Any

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.transfer import Config
from scarce_jax.methods.transfer.pnet import AdversarialStage, PNetStage
from scarce_jax.models import cam_vgg, largefov
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Group, Optimizer, Schedule

IMAGES, STRONG = 10_582, 5_078
BATCH = 30
# No image of VOC is larger than 500 x 500. 513 is 8 * 64 + 1, so that LargeFOV's grid ends at the last pixel.
SIDE = 513

net = dict(
    net=largefov.LargeFOVConfig(dropout=0.5),
    batch=BATCH,
    size=(SIDE, SIDE),
    fit="native",
    augment=Augment(crop=(321, 321), scale=(1.0, 1.0), rotate_probability=0.0, flip=0.5),
    init_from="hf:timm/vgg16.tv_in1k",
    eval_batch=8,
)


CONSTANT = Schedule(kind="constant")


def caffe(lr: float, schedule: Schedule = CONSTANT, head: str = largefov.HEAD_PATTERN) -> Optimizer:
    """SGD as in DeepLab's solver.

    The classifier has ten times the learning rate, biases have twice the learning rate and no weight decay.
    """
    groups = (
        Group(pattern=f"{head}.*bias$", lr=20.0, weight_decay=0.0),
        Group(pattern=head, lr=10.0),
        Group(pattern=largefov.BIAS_PATTERN, lr=2.0, weight_decay=0.0),
        Group(),
    )
    return Optimizer(lr=lr, momentum=0.9, weight_decay=5e-4, schedule=schedule, groups=groups)


config = Config(
    dataset="voc",
    budget=Budget(strong_categories=("split-set-1",)),
    cam=SegmenterStage(steps=15 * IMAGES // BATCH, optim=caffe(1e-3, Schedule(), cam_vgg.HEAD_PATTERN), **net),
    lnet=SegmenterStage(steps=30 * STRONG // BATCH, optim=caffe(5e-8 * 321**2), **net),
    segmenter=SegmenterStage(
        steps=6_000,
        optim=caffe(1e-3, Schedule(kind="step", boundaries=(2_000, 4_000))),
        eval_every=2_000,
        **net,
    ),
    pnet=PNetStage(
        steps=5 * STRONG // BATCH,
        batch=BATCH,
        side=41,
        optim=Optimizer(lr=1e-3, weight_decay=5e-4, schedule=CONSTANT),
        eval_batch=8,
    ),
    adversarial=AdversarialStage(
        steps=30 * IMAGES // BATCH,
        batch=BATCH,
        optim=caffe(1e-5),
        pnet_optim=Optimizer(lr=1e-3, weight_decay=5e-4, schedule=CONSTANT),
        eval_every=2_000,
    ),
    paper={"pnet": 0.607, "lnet": 0.596, "all_labels": 0.629},
)


def of_split(number: int, strong: int, size: tuple[int, int] = (SIDE, SIDE), **changes: Any) -> Config:
    """The config of another split-set, with the steps for its number of strong images; `size` is of label maps."""
    return dataclasses.replace(
        config,
        budget=Budget(strong_categories=(f"split-set-{number}",)),
        lnet=dataclasses.replace(config.lnet, size=size, steps=30 * strong // BATCH),
        pnet=dataclasses.replace(config.pnet, steps=5 * strong // BATCH),
        **changes,
    )
