"""The decoupled method on `scenes/coloured`, five masks of each class, for two CPU cores.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation"; the built-in
pictures in place of VOC, and nets of an eighth of the width with one convolution where VGG-16 has two or three, from
scratch and with batch normalisation. With --compare also the nets trained on the images with masks alone, and
DeconvNet.
Command: scarce-jax train configs/decoupled_scenes.py --compare [--budget.per-class 10]
"""

import dataclasses

from scarce_jax.data.budget import Budget
from scarce_jax.methods.decoupled import ClassifierStage, Config, DeconvNetStage
from scarce_jax.methods.decoupled.figure_ground import SegmentationStage
from scarce_jax.models.deconvolution import DeconvNetConfig
from scarce_jax.models.decoupled import DecoupledClassifierConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime

# pool5 is 4 x 4, and there are 3 x 3 scores of each class. A place of pool5 sees 94 pixels; with all of VGG-16's
# convolutions it would see 212, more than the image, and saliency says less of where a class is (README).
side = (128, 128)
net = dict(width=8, hidden=256, fc6_kernel=2, convolutions=(1, 1, 1, 1, 1))
adam = Optimizer(kind="adam", lr=7e-4, weight_decay=1e-4)

config = Config(
    dataset="scenes/coloured",
    budget=Budget(per_class=5),
    classifier=ClassifierStage(
        steps=2_000,
        batch=8,
        size=side,
        # No cuts: what is cut off is a tag without its object.
        augment=Augment(crop=side, scale=(1.0, 1.0), rotate=0.0, flip=0.5),
        net=DecoupledClassifierConfig(batch_norm=True, dropout=0.0, **net),
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
