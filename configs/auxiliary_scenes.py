"""Auxiliary confidence on `scenes/coloured` with an eighth of the labels (50 images), for two CPU cores.

Paper: "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review), here on the built-in
dataset with a DSNet of half width at 64 x 64. The stage `semi` starts from the trained segmenter, and half of each of
its batches is labelled. The baselines of `--compare` are the labelled images alone for as many steps, all labels,
Hung et al. and UniMatch.

Mean mIoU of three seeds: 0.427 for `semi`, 0.403 for the labelled images alone. A run took 454 to 566 s on a machine
with other work.

Command: scarce-jax train auxiliary_scenes --compare
Figure 1, images annotated where they are trusted: scarce-jax predict RUN IMAGES --out DIR --result trusted --confidence
Figure 4, without and with `semi`: scarce-jax report RUN --result labelled_only,semi
W and gamma: scarce-jax sweep auxiliary_scenes --over seed=0,1,2 --over auxiliary.weighting=none,1.04
    --over "auxiliary.scope='none',batch,labelled_set" --workdir runs/weights
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.adversarial import AdversarialStage
from scarce_jax.methods.auxiliary import Config, SemiStage
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.consistency import ConsistencyStage
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
from scarce_jax.runtime import Runtime

data = dict(batch=8, size=(64, 64), augment=Augment(crop=(64, 64), scale=(0.75, 1.25), rotate=10.0, flip=0.5))
# No class_weighting: in a trial on harder pictures the segmenter's mIoU was 0.235 with the paper's 1.1, and 0.255
# without.
net = dict(net=DSNetConfig(width=16), optim=Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4), eval_batch=20, **data)

config = Config(
    dataset="scenes/coloured",
    budget=Budget(fine=0.125),
    segmenter=SegmenterStage(steps=1000, **net),
    auxiliary=AuxiliaryStage(steps=150, width=16, optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4), **data),
    semi=SemiStage(steps=400, threshold=0.5, start="segmenter", labelled_batch=4, **net),
    adversarial=AdversarialStage(steps=150, discriminator_width=16, semi_start=50, **net),
    consistency=ConsistencyStage(steps=400, **net),
    runtime=Runtime(checkpoint_every=250, log_every=20),
)
