"""The decoupled method on VOC's animals, small enough for two CPU cores.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation"; here six classes at
128 x 128, ten masks of each, and nets of a quarter of the width, from scratch and with batch normalisation in place of
VGG-16 with the weights of ImageNet.
Command: scarce-jax prepare voc/animals --source VOC; scarce-jax train configs/decoupled_voc_animals_small.py
"""

import dataclasses

from scarce_jax.data.budget import Budget
from scarce_jax.methods.class_segmentation import SegmentationStage
from scarce_jax.methods.decoupled import ClassifierStage, Config, DeconvNetStage
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.ops.warp import Augment
from scarce_jax.training.optim import Optimizer
from scarce_jax.training.recipe import Runtime

# pool5 is 4 x 4, and there are 2 x 2 scores of each class.
data = dict(size=(128, 128), eval_batch=16)
augment = Augment(crop=(128, 128), scale=(1.0, 1.5), rotate=10.0, flip=0.5)
net = dict(width=16, hidden=256, fc6_kernel=3, augment=augment)
adam = Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4)

config = Config(
    dataset="voc/animals",
    budget=Budget(per_class=10),
    classifier=ClassifierStage(
        steps=2_000,
        batch=16,
        batch_norm=True,
        dropout=0.3,
        optim=dataclasses.replace(adam, lr=7e-4),
        eval_every=500,
        **net,
        **data,
    ),
    decoupled=SegmentationStage(
        steps=800,
        batch=8,
        size=(160, 160),
        crops=Combinatorial(crop=(128, 128), enlarge=(1.0, 3.0)),
        hidden=128,
        optim=adam,
        eval_batch=16,
    ),
    deconvnet=DeconvNetStage(batch=8, optim=adam, **net, **data),
    runtime=Runtime(checkpoint_every=200, log_every=20),
)
