"""Label and prediction transfer on VOC's animals, for two CPU cores.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation". Cat, cow and person are strong; dog, horse and
sheep are weak. The nets are small, at 64 x 64, and trained from scratch, not a VGG-16 with ImageNet weights.

Command: scarce-jax prepare voc/animals --source VOC; scarce-jax train transfer_voc_animals_small --compare
"""

from scarce_jax.cpu.diffusion import Diffusion
from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.transfer import Config
from scarce_jax.methods.transfer.pnet import AdversarialStage, PNetStage
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer, Schedule
from scarce_jax.runtime import Runtime

data = dict(batch=8, size=(64, 64), augment=Augment(crop=(64, 64), scale=(0.75, 1.25), rotate=10.0, flip=0.5))
resnet = dict(net=PSPNetConfig(backbone=ResNetConfig(depth=18, width=16)), aux_weight=0.0, eval_batch=20, **data)
dsnet = dict(net=DSNetConfig(width=16), eval_batch=20, **data)
# Label maps are inferred at 128 x 128, where class maps and objectness have twice as many places along each side.
lnet = dsnet | dict(size=(128, 128), augment=Augment(crop=(64, 64), scale=(0.5, 1.25), rotate=10.0, flip=0.5))
adam = Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4)

config = Config(
    dataset="voc/animals",
    budget=Budget(strong_categories=("cat", "cow", "person")),
    cam=SegmenterStage(steps=3_000, optim=adam, **resnet),
    lnet=SegmenterStage(steps=1_500, optim=adam, **lnet),
    diffusion=Diffusion(
        segments=200,
        sigma2=0.02,
        foreground_seed=0.4,
        seed_objectness=0.9,
        background_map=0.3,
        background_objectness=0.15,
    ),
    segmenter=SegmenterStage(steps=2_000, optim=adam, **dsnet),
    pnet=PNetStage(
        steps=200, batch=8, width=8, side=32, optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4), eval_batch=20
    ),
    adversarial=AdversarialStage(
        steps=300,
        batch=8,
        optim=Optimizer(kind="adam", lr=1e-4, weight_decay=1e-4, schedule=Schedule(kind="constant")),
        pnet_optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, schedule=Schedule(kind="constant")),
    ),
    runtime=Runtime(checkpoint_every=500, log_every=50),
)
