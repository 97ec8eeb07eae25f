"""The decoupled method on `scenes/coloured` with five masks of each class, for two CPU cores.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation", here on the
built-in dataset. The nets have an eighth of the paper's width and one convolution in each group of VGG-16. They are
trained from scratch with batch normalisation. The baselines of `--compare` are the same nets trained only on the images
with masks, and DeconvNet.

Command: scarce-jax train configs/decoupled_scenes.py --compare [--budget.per-class 10]
"""

import dataclasses

from scarce_jax.data.budget import Budget
from scarce_jax.methods.decoupled import ClassifierStage, Config, DeconvNetStage
from scarce_jax.methods.decoupled.figure_ground import SegmentationStage
from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.decoupled import DecoupledClassifierConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime

# pool5 is 4 x 4, and each class has 3 x 3 scores. The receptive field of pool5 is 94 pixels wide. With all convolutions
# of VGG-16 it would be 212, wider than the image, and the saliency would localise classes less well (see the README).
side = (128, 128)
net = dict(backbone=VGGConfig(width=8, batch_norm=True, convolutions=(1, 1, 1, 1, 1)), hidden=256, fc6_kernel=2)
adam = Optimizer(kind="adam", lr=7e-4, weight_decay=1e-4)

config = Config(
    dataset="scenes/coloured",
    budget=Budget(per_class=5),
    classifier=ClassifierStage(
        steps=2_000,
        batch=8,
        size=side,
        # No crops, because an object that is cut off would leave a tag without its object.
        augment=Augment(crop=side, scale=(1.0, 1.0), rotate=0.0, flip=0.5),
        net=DecoupledClassifierConfig(dropout=0.0, **net),
        optim=dataclasses.replace(adam, lr=1e-3),
        eval_batch=20,
    ),
    decoupled=SegmentationStage(
        steps=600,
        batch=4,
        size=side,
        crops=Combinatorial(crop=side, enlarge=(1.0, 3.0)),
        hidden=128,
        optim=adam,
        eval_batch=20,
    ),
    strong_steps=300,
    deconvnet=DeconvNetStage(
        net=DeconvNetConfig(**net),
        batch=4,
        size=side,
        augment=Augment(crop=side, scale=(0.8, 1.4), rotate=10.0, flip=0.5),
        optim=adam,
        eval_batch=20,
    ),
    runtime=Runtime(checkpoint_every=500, log_every=20),
)
