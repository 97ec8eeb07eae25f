"""Weak-to-strong consistency on `scenes/coloured` with an eighth of the labels (50 images), for two CPU cores.

Paper: Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (UniMatch, CVPR
2023), here on the built-in dataset with the net, images and labels of auxiliary_scenes.py.

In one run from random values the mIoU was 0.260, less than the 0.306 of the labelled images alone after as many steps.
The cause was not isolated. At the last step 71% of the unlabelled pixels reached the threshold.

Command: scarce-jax train consistency_scenes
Beside the labelled images alone and other methods: scarce-jax train auxiliary_scenes --compare
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.consistency import Config, ConsistencyStage
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime

config = Config(
    dataset="scenes/coloured",
    budget=Budget(fine=0.125),
    consistency=ConsistencyStage(
        steps=400,
        batch=8,
        size=(64, 64),
        augment=Augment(crop=(64, 64), scale=(0.75, 1.25), rotate=10.0, flip=0.5),
        net=DSNetConfig(width=16),
        optim=Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4),
        eval_batch=20,
    ),
    runtime=Runtime(checkpoint_every=250, log_every=20),
)
