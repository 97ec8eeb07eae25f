"""Weak-to-strong consistency on CamVid for two CPU cores: DSNet of half width, frames at 120 x 160.

Paper: Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (UniMatch, CVPR
2023), which has no figures for CamVid. Net, images, labels and optimizer are those of auxiliary_camvid_small.py, and so
is the number of steps, that of its stage `segmenter`.

Command: scarce-jax prepare camvid --source CAMVID; scarce-jax train consistency_camvid_small
Fewer labels: --budget.fine 0.25
Teacher of UniMatch V2: --consistency.teacher ema --consistency.optim.ema 0.996 --consistency.feature-dropout 0
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.consistency import Config, ConsistencyStage
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime

config = Config(
    dataset="camvid",
    budget=Budget(fine=0.5, draw="stride"),
    consistency=ConsistencyStage(
        steps=1200,
        batch=8,
        size=(120, 160),
        augment=Augment(crop=(96, 128), scale=(0.75, 1.5), rotate=5.0, flip=0.5),
        net=DSNetConfig(width=16),
        optim=Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4),
        eval_batch=8,
    ),
    runtime=Runtime(checkpoint_every=200, log_every=20),
)
