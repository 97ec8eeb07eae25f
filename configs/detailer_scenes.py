"""The detailer on `scenes`: coarse masks into detailed ones, on two CPU cores.

Paper: Katsman et al., "Semantic Segmentation with Scarce Data", 2018, here in miniature: ResNet-18 at half width, no
pretraining, 50 images with fine masks.
Command: scarce-jax train configs/detailer_scenes.py [--compare] [--seed 1]
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage, StudentStage
from scarce_jax.ops.warp import Augment
from scarce_jax.training.optim import Optimizer
from scarce_jax.training.recipe import Runtime

# What the detailer and the plain classifier share, so that their comparison is fair.
shared = dict(
    batch=8,
    size=(256, 256),
    augment=Augment(crop=(128, 128), scale=(0.5, 1.25), rotate=10.0, flip=0.5),
    depth=18,
    width=32,
    optim=Optimizer(lr=0.05, momentum=0.9, weight_decay=1e-4),
)

config = Config(
    dataset="scenes",
    budget=Budget(fine=50),
    detailer=DetailerStage(steps=300, embedding=128, **shared),
    classifier=SegmenterStage(steps=300, **shared),
    student=StudentStage(steps=300, images=100, **shared),
    runtime=Runtime(checkpoint_every=100, log_every=20),
)
