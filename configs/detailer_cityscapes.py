"""The detailer on Cityscapes at 340 x 340: table 1 of the paper.

Paper: Katsman et al., "Semantic Segmentation with Scarce Data". `paper` has its figures, mIoU. As in the paper,
training takes 10,000 steps with up to 200 images and 90,000 with more (see `STEPS`).

ImageNet weights of the backbone, from which the paper starts, are downloaded; `--detailer.init-from`,
`--classifier.init-from` and `--student.init-from` take a file instead.

Command: scarce-jax train configs/detailer_cityscapes.py --compare --budget.fine 100
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage, StudentStage
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Group, Optimizer

STEPS = {10: 10_000, 25: 10_000, 50: 10_000, 100: 10_000, 200: 10_000, 500: 90_000, 2975: 90_000}

shared = dict(
    steps=STEPS[100],
    batch=8,
    size=(340, 340),
    augment=Augment(crop=(340, 340), scale=(0.5, 2.0), rotate=10.0, flip=0.5),
    optim=Optimizer(
        lr=0.01,
        momentum=0.99,
        weight_decay=1e-4,
        groups=(Group(pattern="^backbone/"), Group(lr=10.0)),
    ),
    eval_every=2_000,
    eval_batch=8,
    init_from="hf:timm/resnet101.tv_in1k",
)

backbone = ResNetConfig(depth=101)

config = Config(
    dataset="cityscapes",
    budget=Budget(fine=100),
    detailer=DetailerStage(net=DetailerConfig(backbone=backbone), **shared),
    classifier=SegmenterStage(net=PSPNetConfig(backbone=backbone), **shared),
    student=StudentStage(images=100, net=PSPNetConfig(backbone=backbone), **shared),
    paper={
        "coarse": 0.4781,
        "detailer": 0.5661,
        "classifier": 0.4275,
        "detailer_composite": 0.6060,
        "classifier_composite": 0.5808,
        "student_detailed": 0.3785,
        "student_coarse": 0.3461,
        "table_1": {
            "budget.fine": list(STEPS),
            "detailer.steps+classifier.steps": list(STEPS.values()),
            "detailer": [0.4425, 0.5134, 0.5326, 0.5661, 0.5995, 0.6045, 0.6494],
            "classifier": [0.2354, 0.3549, 0.3854, 0.4275, 0.4750, 0.4578, 0.6411],
        },
    },
)
