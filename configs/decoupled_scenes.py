"""The decoupled method on `scenes/coloured`, five masks of each class, for two CPU cores.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation"; the built-in
pictures in place of VOC, and nets of an eighth of the width, from scratch and with batch normalisation. With --compare
also the nets trained on the images with masks alone, and DeconvNet.
Command: scarce-jax train configs/decoupled_scenes.py --compare [--budget.per-class 10]
"""

import dataclasses

from scarce_jax.data.budget import Budget
from scarce_jax.methods.class_segmentation import SegmentationStage
from scarce_jax.methods.decoupled import ClassifierStage, Config, DeconvNetStage
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.ops.warp import Augment
from scarce_jax.training.optim import Optimizer
from scarce_jax.training.recipe import Runtime

# pool5 is 3 x 3, and there are 2 x 2 scores of each class.
side = (96, 96)
augment = Augment(crop=side, scale=(0.8, 1.4), rotate=10.0, flip=0.5)
net = dict(width=8, hidden=256, fc6_kernel=2, augment=augment)
data = dict(batch=8, eval_batch=20)
adam = Optimizer(kind="adam", lr=7e-4, weight_decay=1e-4)

config = Config(
    dataset="scenes/coloured",
    budget=Budget(per_class=5),
    classifier=ClassifierStage(
        steps=900,
        size=side,
        batch_norm=True,
        dropout=0.2,
        optim=dataclasses.replace(adam, lr=1e-3),
        **net,
        **data,
    ),
    decoupled=SegmentationStage(
        steps=500,
        size=(128, 128),
        crops=Combinatorial(crop=side, enlarge=(1.0, 3.0)),
        hidden=128,
        optim=adam,
        batch=4,
        eval_batch=20,
    ),
    deconvnet=DeconvNetStage(size=side, optim=adam, batch=4, eval_batch=20, **net),
    runtime=Runtime(checkpoint_every=500, log_every=20),
)
