"""Auxiliary confidence on CamVid with half of its labels, as in the paper: 360 x 480, for a GPU.

Paper: "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review). `paper` has the
figures of its table 7. They are for the test split, which is measured here too, and for an encoder pretrained on
ImageNet, which was not published. This config starts from random values. With all images labelled, `labelled_only` is
the supervised net.

The paper does not say how far images are moved; here it is up to 2 pixels. Labelled frames are drawn by stride, because
neighbouring frames of a video are alike.

Command: scarce-jax prepare camvid --source CAMVID; scarce-jax train auxiliary_camvid --compare
Table 7: scarce-jax sweep auxiliary_camvid --over paper.table_7 --workdir runs/table_7
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

SIZE = (360, 480)

data = dict(
    batch=8,
    size=SIZE,
    augment=Augment(crop=SIZE, scales=(0.8, 1.0, 1.3, 1.7), rotate_probability=0.0, translate=2, flip=0.5),
)
net = dict(
    net=DSNetConfig(width=32),
    class_weighting=1.1,
    optim=Optimizer(lr=0.075, weight_decay=5e-4),
    eval_every=1_000,
    **data,
)

config = Config(
    dataset="camvid",
    eval_split="test",
    budget=Budget(fine=0.5, draw="stride"),
    segmenter=SegmenterStage(epochs=150, **net),
    auxiliary=AuxiliaryStage(epochs=50, optim=Optimizer(kind="adam_l2", lr=5e-4, weight_decay=5e-4), **data),
    semi=SemiStage(epochs=150, threshold=0.9, **net),
    adversarial=AdversarialStage(epochs=300, semi_start=1_000, **net),
    consistency=ConsistencyStage(epochs=300, **net),
    paper={
        "semi": 0.706,
        "labelled_only": 0.693,
        "all_labels": 0.718,
        "table_7": {"budget.fine": [0.5, "all"], "semi": [0.706, None], "labelled_only": [0.693, 0.718]},
    },
)
