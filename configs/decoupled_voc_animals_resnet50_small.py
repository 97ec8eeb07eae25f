"""The decoupled method on VOC's animals from ImageNet's ResNet-50, for two CPU cores: ten masks of each class.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation". In place of VGG-16
the classifier stands on a ResNet-50, of which layer4 is trained. It has no switches: the deconvolution net unpools to
the upper left of each window, with one convolution of half the paper's width in each group. Images have 160 x 160
pixels.

Command: scarce-jax prepare voc/animals --source VOC;
  scarce-jax train decoupled_voc_animals_resnet50_small --compare
`--classifier.init-from FILE` takes weights from a file instead. docs/results/decoupled.md has the figures.
"""

import dataclasses

from scarce_jax.data.budget import Budget
from scarce_jax.methods.decoupled import ClassifierStage, Config
from scarce_jax.methods.decoupled.figure_ground import SegmentationStage
from scarce_jax.models.decoupled import DecoupledClassifierConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.optim import Group, Optimizer
from scarce_jax.runtime import Runtime

# The last features are 5 x 5, and each class has 4 x 4 scores, as in the paper.
side = (160, 160)
adam = Optimizer(kind="adam", lr=5e-4, weight_decay=1e-4)
fine_tuned = dataclasses.replace(adam, groups=(Group(pattern="^backbone/", lr=0.1), Group()))

config = Config(
    dataset="voc/animals",
    budget=Budget(per_class=10),
    classifier=ClassifierStage(
        steps=600,
        batch=16,
        size=side,
        # Hardly any crops, because an object that is cut off would leave a tag without its object.
        augment=Augment(crop=side, scale=(1.0, 1.15), rotate=0.0, flip=0.5),
        net=DecoupledClassifierConfig(
            backbone=ResNetConfig(depth=50, frozen=4, frozen_statistics=True), hidden=256, fc6_kernel=2
        ),
        init_from="hf:timm/resnet50.tv_in1k",
        optim=fine_tuned,
        eval_batch=25,
    ),
    decoupled=SegmentationStage(
        steps=1200,
        batch=4,
        size=side,
        crops=Combinatorial(crop=side, enlarge=(1.0, 3.0)),
        width=32,
        hidden=512,
        deconvolutions=(1, 1, 1, 1, 1),
        optim=adam,
        eval_batch=25,
    ),
    strong_steps=200,
    runtime=Runtime(checkpoint_every=300, log_every=20),
)
