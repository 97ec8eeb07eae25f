"""The detailer on `scenes`: coarse masks become detailed ones, on two CPU cores.

Paper: Katsman et al., "Semantic Segmentation with Scarce Data", here with a ResNet-18 of half width, no pretraining,
and 50 images with fine masks.

Command: scarce-jax train detailer_scenes [--compare] [--seed 1]
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime

# Detailer and plain classifier share these settings, so that their comparison is fair.
shared = dict(
    steps=300,
    batch=4,
    size=(192, 192),
    augment=Augment(crop=(128, 128), scale=(0.6, 1.2), rotate=10.0, flip=0.5),
    # As in detailer_camvid_small.py; no other optimizer was tried.
    optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),
)

backbone = ResNetConfig(depth=18, width=32)

config = Config(
    dataset="scenes",
    budget=Budget(fine=50),
    detailer=DetailerStage(net=DetailerConfig(embedding=128, backbone=backbone), **shared),
    classifier=SegmenterStage(net=PSPNetConfig(backbone=backbone), **shared),
    runtime=Runtime(checkpoint_every=100, log_every=20),
)
