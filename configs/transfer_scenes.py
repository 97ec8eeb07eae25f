"""Label and prediction transfer on `scenes/coloured`, for two CPU cores: seven strong and four weak categories.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", here on the built-in dataset, with small nets
from scratch instead of VGG-16. Each weak category has strong ones of its kind: checked fish (two other fish), octopus
(starfish, crab), eel (the fish) and jellyfish (shell). With `--compare` the baselines of the paper are also trained.

Command: scarce-jax train transfer_scenes --compare
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
# The last features have an eighth of the image's size. Those of DSNet's encoder are coarser.
resnet = dict(net=PSPNetConfig(backbone=ResNetConfig(depth=18, width=16)), aux_weight=0.0, eval_batch=20, **data)
dsnet = dict(net=DSNetConfig(width=16), eval_batch=20, **data)
# Label maps are inferred at 128 x 128, where class maps and objectness have twice as many places along each side.
lnet = dsnet | dict(size=(128, 128), augment=Augment(crop=(64, 64), scale=(0.5, 1.25), rotate=10.0, flip=0.5))
adam = Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4)

config = Config(
    dataset="scenes/coloured",
    budget=Budget(strong_categories=("striped fish", "spotted fish", "starfish", "crab", "kelp", "coral", "shell")),
    cam=SegmenterStage(steps=700, optim=adam, **resnet),
    lnet=SegmenterStage(steps=450, optim=adam, **lnet),
    diffusion=Diffusion(
        segments=200,
        sigma2=0.02,
        foreground_seed=0.4,
        # Over the weak categories 150 label maps had an mIoU of 0.205 at 0, 0.288 at 0.9, and 0.166 without the L-Net
        # (seed 0, best of a few thresholds each).
        seed_objectness=0.9,
        background_map=0.3,
        background_objectness=0.15,
    ),
    segmenter=SegmenterStage(steps=420, optim=adam, **dsnet),
    pnet=PNetStage(
        steps=100, batch=8, width=8, side=32, optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4), eval_batch=20
    ),
    adversarial=AdversarialStage(
        steps=80,
        batch=8,
        optim=Optimizer(kind="adam", lr=1e-4, weight_decay=1e-4, schedule=Schedule(kind="constant")),
        pnet_optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, schedule=Schedule(kind="constant")),
    ),
    runtime=Runtime(checkpoint_every=500, log_every=20),
)
