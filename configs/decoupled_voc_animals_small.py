"""The decoupled method on VOC's animals, small enough for two CPU cores.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation"; here six classes at
96 x 96, ten masks of each, and nets of three sixteenths of the width, from scratch and with batch normalisation in
place of VGG-16 with the weights of ImageNet.
Command: scarce-jax prepare voc/animals --source VOC; scarce-jax train configs/decoupled_voc_animals_small.py --compare
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
augment = Augment(crop=side, scale=(1.0, 1.4), rotate=10.0, flip=0.5)
net = dict(width=12, hidden=256, fc6_kernel=2, augment=augment)
adam = Optimizer(kind="adam", lr=7e-4, weight_decay=1e-4)

config = Config(
    dataset="voc/animals",
    budget=Budget(per_class=10),
    classifier=ClassifierStage(
        steps=2_500,
        batch=8,
        size=side,
        batch_norm=True,
        dropout=0.2,
        optim=dataclasses.replace(adam, lr=1e-3),
        eval_every=500,
        eval_batch=20,
        **net,
    ),
    decoupled=SegmentationStage(
        steps=1_500,
        batch=4,
        size=(128, 128),
        crops=Combinatorial(crop=side, enlarge=(1.0, 3.0)),
        hidden=128,
        optim=adam,
        eval_batch=20,
    ),
    deconvnet=DeconvNetStage(batch=4, size=side, optim=adam, eval_batch=20, **net),
    runtime=Runtime(checkpoint_every=500, log_every=50),
)
