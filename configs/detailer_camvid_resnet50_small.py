"""The detailer on CamVid from ImageNet's ResNet-50, for two CPU cores.

Paper: Katsman et al., "Semantic Segmentation with Scarce Data". In place of its PSPNet of stride 8 it is a DeepLabv3+
of stride 16, whose decoder reads the coarse mask at a quarter of the image's size. Windows of the coarse mask add to
the logits (`nearby`, not in the paper). The stem, layer1 and layer2 are frozen; what they compute of 24 draws of
each image is kept in memory.

Command: scarce-jax prepare camvid --source CAMVID; scarce-jax train detailer_camvid_resnet50_small --compare
Other budgets: --budget.fine 50 (or 100)
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusConfig, DeepLabV3PlusDetailerConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Group, Optimizer
from scarce_jax.runtime import Runtime

net = dict(backbone=ResNetConfig(depth=50, frozen=3, frozen_statistics=True), output_stride=16)

# Detailer and plain classifier share these settings, so that their comparison is fair.
shared = dict(
    steps=800,
    batch=4,
    # One and a half times the frames' size, so that features of stride 4 and 16 show poles and persons better.
    size=(540, 720),
    cache=24,
    augment=Augment(crop=(224, 224), scale=(0.7, 1.4), rotate=5.0, flip=0.5),
    class_weighting=1.1,
    rare_class_sampling=1.0,
    init_from="hf:timm/resnet50.tv_in1k",
    optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, groups=(Group(pattern="^backbone/", lr=0.1), Group())),
)

config = Config(
    dataset="camvid",
    budget=Budget(fine=25),
    detailer=DetailerStage(
        net=DeepLabV3PlusDetailerConfig(nearby=(1, 3, 7, 15, 31, 47), nearby_weight=2.0, **net), **shared
    ),
    classifier=SegmenterStage(net=DeepLabV3PlusConfig(**net), **shared),
    runtime=Runtime(checkpoint_every=100, log_every=20),
)
