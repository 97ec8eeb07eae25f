"""Auxiliary confidence on `scenes/coloured`, an eighth of the labels (50 images), for two CPU cores.

Paper: "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review); the built-in
pictures in place of the paper's. DSNet of half width at 64 x 64; the semi-supervised stage goes on from the segmenter,
half of every batch labelled. With --compare also the labelled images alone for as many steps, all labels, and Hung et
al. Three seeds: semi 0.427 mIoU, labelled images alone 0.403, in 454 to 566 s beside other work.
Command: scarce-jax train configs/auxiliary_scenes.py --compare
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.adversarial import AdversarialStage
from scarce_jax.methods.auxiliary import Config, SemiStage
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime

data = dict(batch=8, size=(64, 64), augment=Augment(crop=(64, 64), scale=(0.75, 1.25), rotate=10.0, flip=0.5))
# Without class_weighting: with the paper's, 1.1, the segmenter ended lower in a trial on harder pictures (mIoU 0.235
# against 0.255).
net = dict(net=DSNetConfig(width=16), optim=Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4), eval_batch=20, **data)

config = Config(
    dataset="scenes/coloured",
    budget=Budget(fine=0.125),
    segmenter=SegmenterStage(steps=1000, **net),
    auxiliary=AuxiliaryStage(steps=150, width=16, optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4), **data),
    semi=SemiStage(steps=400, threshold=0.5, start="segmenter", labelled_batch=4, **net),
    adversarial=AdversarialStage(steps=150, discriminator_width=16, semi_start=50, **net),
    runtime=Runtime(checkpoint_every=250, log_every=20),
)
