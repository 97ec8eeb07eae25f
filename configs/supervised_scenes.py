"""A supervised PSPNet on `scenes`: the one-stage recipe to read first.

Command: scarce-jax train supervised_scenes --budget.fine 100
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.supervised import Config
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime

config = Config(
    dataset="scenes",
    budget=Budget(fine="all"),
    segmenter=SegmenterStage(
        steps=600,
        batch=4,
        size=(192, 192),
        augment=Augment(crop=(128, 128), scale=(0.6, 1.2), rotate=10.0, flip=0.5),
        net=PSPNetConfig(backbone=ResNetConfig(depth=18, width=32)),
        optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),
        eval_every=200,
    ),
    runtime=Runtime(checkpoint_every=100, log_every=20),
)
