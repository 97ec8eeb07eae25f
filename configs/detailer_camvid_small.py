"""The detailer on CamVid with simulated coarse masks, for two CPU cores.

Paper: Katsman et al., "Semantic Segmentation with Scarce Data". The paper uses Cityscapes and a ResNet-101 with
ImageNet weights; here it is a ResNet-18 of half width without pretraining, and frames are 180 x 240.

Command: scarce-jax prepare camvid --source CAMVID; scarce-jax train detailer_camvid_small --compare
Other budgets: --budget.fine 50 (or 100)
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime

# Detailer and plain classifier share these settings, so that their comparison is fair.
shared = dict(
    steps=400,
    batch=4,
    size=(180, 240),
    augment=Augment(crop=(128, 128), scale=(0.6, 1.2), rotate=10.0, flip=0.5),
    # With SGD (lr 0.05) the detailer stayed below the coarse mask in so few steps. Chosen by mIoU on val, 25 images.
    optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),
)

backbone = ResNetConfig(depth=18, width=32)

config = Config(
    dataset="camvid",
    budget=Budget(fine=25),
    detailer=DetailerStage(net=DetailerConfig(embedding=128, backbone=backbone), **shared),
    classifier=SegmenterStage(net=PSPNetConfig(backbone=backbone), **shared),
    runtime=Runtime(checkpoint_every=100, log_every=20),
)
