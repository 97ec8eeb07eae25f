"""Auxiliary confidence on CamVid, small enough for two CPU cores: DSNet of half width, frames at 180 x 240.

Paper and its figures as in auxiliary_camvid.py, under other conditions: full width, 360 x 480, 150 epochs, pretrained.
Command: scarce-jax prepare camvid --source CAMVID; scarce-jax train configs/auxiliary_camvid_small.py --compare
Other rows: --budget.fine 0.25
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.adversarial import AdversarialStage
from scarce_jax.methods.auxiliary import AuxiliaryStage, Config, SemiStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.ops.warp import Augment
from scarce_jax.training.optim import Optimizer
from scarce_jax.training.recipe import Runtime

data = dict(batch=8, size=(180, 240), augment=Augment(crop=(128, 128), scale=(0.6, 1.2), rotate=10.0, flip=0.5))
net = dict(net="dsnet", width=16, optim=Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4), **data)

config = Config(
    dataset="camvid",
    budget=Budget(fine=0.5, draw="stride"),
    segmenter=SegmenterStage(steps=400, **net),
    auxiliary=AuxiliaryStage(steps=200, width=16, optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4), **data),
    semi=SemiStage(steps=600, threshold=0.7, **net),
    adversarial=AdversarialStage(steps=300, discriminator_width=16, semi_start=100, **net),
    paper={"semi": 0.706, "labelled_only": 0.693, "all_labels": 0.718},
    runtime=Runtime(checkpoint_every=100, log_every=20),
)
