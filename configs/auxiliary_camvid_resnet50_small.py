"""Auxiliary confidence on CamVid from ImageNet's ResNet-50, for two CPU cores: frames at 120 x 160.

Paper: "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review). In place of its DSNet
the segmenter is a DeepLabv3+ of stride 16, whose stem, layer1 and layer2 are frozen. The auxiliary net has half the
paper's width. Pseudo labels are those of both views of a frame, an equal share of each class is trusted, and the
colours of the pseudo-labelled frames are changed.

Command: scarce-jax prepare camvid --source CAMVID; scarce-jax train auxiliary_camvid_resnet50_small --compare
`--segmenter.init-from FILE` takes weights from a file instead. Other budgets: --budget.fine 0.25
"""

import dataclasses

from scarce_jax.data.budget import Budget
from scarce_jax.methods.adversarial import AdversarialStage
from scarce_jax.methods.auxiliary import Config, SemiStage
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.consistency import ConsistencyStage
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Group, Optimizer
from scarce_jax.runtime import Runtime

data = dict(batch=8, size=(120, 160), augment=Augment(crop=(96, 128), scale=(0.75, 1.5), rotate=5.0, flip=0.5))
groups = (Group(pattern="^backbone/", lr=0.1), Group())
net = dict(
    net=DeepLabV3PlusConfig(backbone=ResNetConfig(depth=50, frozen=3, frozen_statistics=True), output_stride=16),
    optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, groups=groups),
    eval_batch=8,
    **data,
)
WEIGHTS = "hf:timm/resnet50.tv_in1k"

config = Config(
    dataset="camvid",
    budget=Budget(fine=0.125, draw="stride"),
    segmenter=SegmenterStage(steps=600, init_from=WEIGHTS, **net),
    auxiliary=AuxiliaryStage(
        steps=300,
        width=16,
        weighting=1.04,
        scope="batch",
        optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),
        **data,
    ),
    semi=SemiStage(
        steps=200,
        threshold=0.5,
        share=0.5,
        flip=True,
        start="segmenter",
        labelled_batch=16,
        pseudo_augment=dataclasses.replace(data["augment"], brightness=0.5, contrast=0.5, saturation=0.5),
        **net | dict(batch=24),
    ),
    adversarial=AdversarialStage(steps=80, discriminator_width=16, semi_start=25, **net),
    consistency=ConsistencyStage(steps=200, **net),
    runtime=Runtime(checkpoint_every=200, log_every=20),
)
