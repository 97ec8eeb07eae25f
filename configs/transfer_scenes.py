"""Label and prediction transfer on `scenes/coloured`, for two CPU cores: seven strong and four weak categories.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation"; the built-in pictures in place of VOC, small
nets from scratch in place of VGG-16. Each weak category has strong ones of its kind: checked fish (two other fish),
octopus (starfish, crab), eel (the fish), jellyfish (shell). With --compare also what the paper compares with.
Command: scarce-jax train configs/transfer_scenes.py --compare
"""

from scarce_jax.data.budget import Budget
from scarce_jax.host.diffusion import Diffusion
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.prediction_transfer import AdversarialStage, PNetStage
from scarce_jax.methods.transfer import Config
from scarce_jax.ops.warp import Augment
from scarce_jax.training.optim import Optimizer, Schedule
from scarce_jax.training.recipe import Runtime

data = dict(batch=8, size=(128, 128), augment=Augment(crop=(96, 96), scale=(0.75, 1.25), rotate=10.0, flip=0.5))
# Its last features are at an eighth of the image, those of DSNet's encoder are coarser.
resnet = dict(net="pspnet", depth=18, width=16, aux_weight=0.0, eval_batch=20, **data)
dsnet = dict(net="dsnet", width=16, eval_batch=20, **data)
adam = Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4)

config = Config(
    dataset="scenes/coloured",
    budget=Budget(strong_categories=("striped fish", "spotted fish", "starfish", "crab", "kelp", "coral", "shell")),
    cam=SegmenterStage(steps=500, optim=adam, **resnet),
    lnet=SegmenterStage(steps=300, optim=adam, **dsnet),
    diffusion=Diffusion(segments=200),
    segmenter=SegmenterStage(steps=600, optim=adam, **dsnet),
    pnet=PNetStage(
        steps=100, batch=8, side=48, optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4), eval_batch=20
    ),
    adversarial=AdversarialStage(
        steps=150,
        batch=8,
        optim=Optimizer(kind="adam", lr=1e-4, weight_decay=1e-4, schedule=Schedule(kind="constant")),
        pnet_optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, schedule=Schedule(kind="constant")),
    ),
    runtime=Runtime(checkpoint_every=100, log_every=20),
)
