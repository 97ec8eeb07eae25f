"""The detailer on Cityscapes at 340 x 340: tables 1 and 2 of the paper, and the column "lower res" of table 3.

Paper: Katsman et al., "Semantic Segmentation with Scarce Data". `paper` has its figures, mIoU of val, taken to be
measured at 340 x 340, the size of the data; that of the coarse mask is for its own size. Tables 1 and 3 differ by up to
3.7 points for the same settings. As in the paper, training takes 10,000 steps with up to 200 images and 90,000 with
more (see `STEPS`).

The paper trains "as described in the original paper" of the PSPNet, which has a batch of 16, and states the rate of
0.01 and a momentum of 0.99 for all layers. Ours are the 7 x 7 stem of the ResNet, the injection after the pyramid
pooling, the averaging of the coarse mask to the grid of the features before its embedding, and the 100 images of the
students, which are others than those of the detailer. This config was not run.

ImageNet weights of the backbone, from which the paper starts, are downloaded; `--detailer.init-from`,
`--classifier.init-from` and `--student.init-from` take a file instead.

Command: scarce-jax train detailer_cityscapes --compare --budget.fine 100
Table 1: scarce-jax sweep detailer_cityscapes --over paper.table_1 --workdir runs/table_1
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage, StudentStage
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer

STEPS = {10: 10_000, 25: 10_000, 50: 10_000, 100: 10_000, 200: 10_000, 500: 90_000, 2975: 90_000}
SCARCE = [10, 25, 50, 100, 200]

shared = dict(
    steps=STEPS[100],
    batch=16,
    size=(340, 340),
    augment=Augment(crop=(340, 340), scale=(0.5, 2.0), rotate=10.0, flip=0.5),
    optim=Optimizer(lr=0.01, momentum=0.99, weight_decay=1e-4),
    eval_every=2_000,
    eval_batch=8,
    init_from="hf:timm/resnet101.tv_in1k",
)

backbone = ResNetConfig(depth=101)

COARSE = {"miou": 0.4781}
TABLE_2 = {
    "coarse": COARSE,
    "classifier": 0.4275,
    "detailer": 0.5661,
    "classifier_composite": 0.5808,
    "detailer_composite": 0.6060,
}
STUDENTS = {"student_detailed": 0.3785, "student_coarse": 0.3461}

config = Config(
    dataset="cityscapes",
    budget=Budget(fine=100),
    detailer=DetailerStage(net=DetailerConfig(backbone=backbone), **shared),
    classifier=SegmenterStage(net=PSPNetConfig(backbone=backbone), **shared),
    student=StudentStage(images=100, net=PSPNetConfig(backbone=backbone), **shared),
    paper={
        "figure": "miou_at_size",
        **TABLE_2,
        **STUDENTS,
        "table_1": {
            "budget.fine": list(STEPS),
            "detailer.steps+classifier.steps": list(STEPS.values()),
            "detailer": [0.4425, 0.5134, 0.5326, 0.5661, 0.5995, 0.6045, 0.6494],
            "classifier": [0.2354, 0.3549, 0.3854, 0.4275, 0.4750, 0.4578, 0.6411],
            "coarse": [COARSE] * len(STEPS),
        },
        "table_2": {"budget.fine": [100], **{result: [figure] for result, figure in TABLE_2.items()}},
        # The column "lower res"; detailer_cityscapes_850.py has the other one.
        "table_3": {
            "budget.fine": [*SCARCE, 500],
            "detailer.steps": [STEPS[fine] for fine in (*SCARCE, 500)],
            "detailer": [0.4420, 0.5233, 0.5151, 0.5396, 0.5627, 0.5810],
        },
        # Section 5, "Distillation".
        "distillation": {"budget.fine": [100], **{result: [figure] for result, figure in STUDENTS.items()}},
        "gains": [
            {"table": "table_1", "rows": SCARCE, "of": "detailer", "less": "classifier", "paper": 0.1552},
            # By the figures of the paper's tables 1 and 2 it is 0.0527.
            {"table": "table_1", "rows": SCARCE, "of": "detailer", "less": "coarse", "paper": 0.0528},
        ],
    },
)
