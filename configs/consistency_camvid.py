"""Weak-to-strong consistency on CamVid with half of its labels: 360 x 480, for a GPU.

Paper: Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (UniMatch, CVPR
2023), which has no figures for CamVid. Net, images, labels and optimizer are those of auxiliary_camvid.py. 300 epochs
of half of the images are as many steps as 150 epochs of all of them, which its stage `semi` takes.

Command: scarce-jax prepare camvid --source CAMVID; scarce-jax train consistency_camvid
Teacher of UniMatch V2: --consistency.teacher ema --consistency.optim.ema 0.996 --consistency.feature-dropout 0
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.consistency import Config, ConsistencyStage
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer

config = Config(
    dataset="camvid",
    budget=Budget(fine=0.5, draw="stride"),
    consistency=ConsistencyStage(
        epochs=300,
        batch=8,
        size=(360, 480),
        augment=Augment(crop=(360, 480), scale=(0.8, 1.7), rotate_probability=0.0, flip=0.5),
        net=DSNetConfig(width=32),
        class_weighting=1.1,
        optim=Optimizer(lr=0.075, weight_decay=5e-4),
        eval_every=1_000,
    ),
)
