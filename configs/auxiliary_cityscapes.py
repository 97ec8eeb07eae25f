"""Auxiliary confidence on Cityscapes at 512 x 1024 with the paper's real-time net: its tables 3 to 6.

Paper: "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review). `paper` has its
figures, mIoU on val, for an encoder pretrained on ImageNet, which was not published. This config starts from random
values.

The paper does not say how far images are moved; here it is up to 2 pixels. It draws its labelled images at random and
does not publish them. The lists of UniMatch (1_8, 1_4 and 1_2_labeled.txt) can be used with `--budget.fine FILE`.

Command: scarce-jax prepare cityscapes --source CITYSCAPES; scarce-jax train configs/auxiliary_cityscapes.py --compare
Table 6: scarce-jax sweep configs/auxiliary_cityscapes.py --over paper.table_6 --compare --workdir runs/table_6
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.adversarial import AdversarialStage
from scarce_jax.methods.auxiliary import Config, SemiStage
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer

SIZE = (512, 1024)

data = dict(
    batch=4,
    size=SIZE,
    augment=Augment(crop=SIZE, scales=(0.75, 1.0, 1.25, 1.5, 1.75), rotate_probability=0.0, translate=2, flip=0.5),
)
net = dict(
    net=DSNetConfig(width=32),
    class_weighting=1.1,
    optim=Optimizer(lr=0.05, weight_decay=1e-4),
    eval_every=10_000,
    **data,
)

config = Config(
    dataset="cityscapes",
    budget=Budget(fine=0.5),
    segmenter=SegmenterStage(epochs=200, **net),
    auxiliary=AuxiliaryStage(epochs=50, optim=Optimizer(kind="adam", lr=5e-4, weight_decay=1e-4), **data),
    semi=SemiStage(epochs=200, threshold=0.9, **net),
    adversarial=AdversarialStage(epochs=400, **net),
    paper={
        "semi": 0.715,
        "labelled_only": 0.703,
        "all_labels": 0.744,
        "table_6": {
            "budget.fine": [0.125, 0.25, 0.5],
            "semi": [0.602, 0.684, 0.715],
            "labelled_only": [0.577, 0.655, 0.703],
        },
        "table_5": {
            "semi.threshold": [0.0, 0.7, 0.8, 0.9, 1.0],
            "semi": [0.699, 0.713, 0.714, 0.715, 0.703],
        },
    },
)
