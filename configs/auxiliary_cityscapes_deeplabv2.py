"""Auxiliary confidence on Cityscapes with DeepLab-v2: the paper's comparison with Hung et al., its table 6.

Paper: "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review). It uses "the same
settings" as Hung et al., "Adversarial Learning for Semi-Supervised Semantic Segmentation": batch 2 at 512 x 1024,
40,000 steps, and batch normalisation with frozen scale and bias. Both start from a ResNet-101 that was pretrained on
other images. No such weights are shipped; `--segmenter.init-from`, `--semi.init-from` and `--adversarial.init-from`
take a file.

Command: scarce-jax train configs/auxiliary_cityscapes_deeplabv2.py --compare --budget.fine 0.125
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.adversarial import AdversarialStage
from scarce_jax.methods.auxiliary import Config, SemiStage
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.models.deeplab import AFFINE_PATTERN, HEAD_PATTERN, DeepLabV2Config
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Group, Optimizer

SIZE = (512, 1024)

data = dict(
    batch=2,
    size=SIZE,
    augment=Augment(crop=SIZE, scales=(0.75, 1.0, 1.25, 1.5, 1.75), rotate_probability=0.0, translate=2, flip=0.5),
)
net = dict(
    net=DeepLabV2Config(),
    steps=40_000,
    optim=Optimizer(
        lr=2.5e-4,
        weight_decay=5e-4,
        groups=(Group(pattern=AFFINE_PATTERN, lr=0.0), Group(pattern=HEAD_PATTERN, lr=10.0), Group()),
    ),
    eval_every=10_000,
    **data,
)

config = Config(
    dataset="cityscapes",
    budget=Budget(fine=0.5),
    segmenter=SegmenterStage(**net),
    auxiliary=AuxiliaryStage(epochs=50, optim=Optimizer(kind="adam", lr=5e-4, weight_decay=1e-4), **data),
    semi=SemiStage(threshold=0.9, **net),
    adversarial=AdversarialStage(**net),
    paper={
        "semi": 0.677,
        "labelled_only": 0.661,
        "all_labels": 0.696,
        "adversarial": 0.657,
        "table_6": {
            "budget.fine": [0.125, 0.25, 0.5],
            "semi": [0.607, 0.655, 0.677],
            "labelled_only": [0.568, 0.630, 0.661],
            "adversarial": [0.588, 0.623, 0.657],
        },
    },
)
