"""The detailer on CamVid at full size: ResNet-101 at 360 x 480, for a GPU.

Paper: Katsman et al., "Semantic Segmentation with Scarce Data", with its augmentation and learning rate. The paper does
not use CamVid, and the coarse masks are simulated from the fine ones, so none of its figures is comparable.

Command: scarce-jax prepare camvid --source CAMVID; scarce-jax train detailer_camvid --compare
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Group, Optimizer

shared = dict(
    steps=10_000,
    batch=8,
    size=(360, 480),
    augment=Augment(crop=(340, 340), scale=(0.5, 2.0), rotate=10.0, flip=0.5),
    # The paper's momentum of 0.99 has ten times the effective step of 0.9, which is safer without pretrained weights.
    # Layers after the backbone have ten times the learning rate, as in the reference PSPNet code.
    optim=Optimizer(
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        groups=(Group(pattern="^backbone/"), Group(lr=10.0)),
    ),
    eval_every=2_000,
)

backbone = ResNetConfig(depth=101)

config = Config(
    dataset="camvid",
    budget=Budget(fine=100),
    detailer=DetailerStage(net=DetailerConfig(backbone=backbone), **shared),
    classifier=SegmenterStage(net=PSPNetConfig(backbone=backbone), **shared),
)
