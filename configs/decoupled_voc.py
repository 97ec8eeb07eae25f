"""The decoupled method on PASCAL VOC 2012: table 1 of the paper.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation". `paper` has its
figures, mIoU on val.

Nets, batch size of 64, learning rate, weight decay and crop are from the authors' published definitions. So are the
steps of the segmentation net and the step at which its rate falls, which depend on the number of masks of each class
(see `STEPS`). As there, windows may extend beyond the image, and are resized to 350 x 350, of which a random part of
320 x 320 is cut; whole images are padded to a square and resized to 320 x 320; and class probabilities are brought to
the native size by bicubic interpolation. Ours are the windows (there are no EdgeBoxes), the colour of the padding,
which is the mean, not black, the scales of the classifier's and of DeconvNet's crops, one batch of 64 instead of 16
batches of 4, running averages of batch statistics, the learning rate of the classifier, and the training of DeconvNet
in one stage instead of two, with as many steps. This config was not run.

A sweep over the table sets the budget and all values that depend on it (`--over paper.table_1`). Full supervision is
`--budget.per-class None`.

Command: scarce-jax prepare voc --source VOC; scarce-jax train configs/decoupled_voc.py --compare [--budget.per-class 5]
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.decoupled import ClassifierStage, Config, DeconvNetStage
from scarce_jax.methods.decoupled.figure_ground import SegmentationStage
from scarce_jax.models import decoupled
from scarce_jax.models.largefov import BIAS_PATTERN
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.optim import Group, Optimizer, Schedule

STEPS = {5: 5_500, 10: 7_500, 25: 15_000}
FULL = 17_500

# With 5 masks of each class the authors' learning rate falls after 4,000 steps.
LATE = Schedule(kind="step", boundaries=(10_000,))


def caffe(lr: float, schedule: Schedule, *heads: Group) -> Optimizer:
    """SGD as in the authors' solvers: biases have twice the learning rate and no weight decay."""
    biases = Group(pattern=BIAS_PATTERN, lr=2.0, weight_decay=0.0)
    return Optimizer(lr=lr, momentum=0.9, weight_decay=5e-4, schedule=schedule, groups=(*heads, biases, Group()))


config = Config(
    dataset="voc",
    budget=Budget(per_class=10),
    classifier=ClassifierStage(
        steps=5_500,
        batch=64,
        size=(320, 320),
        fit="pad",
        augment=Augment(crop=(320, 320), scale=(1.0, 1.2), rotate_probability=0.0, flip=0.5),
        optim=caffe(1e-3, Schedule(), Group(pattern=decoupled.HEAD_PATTERN, lr=10.0)),
        eval_every=1_100,
        init_from="hf:timm/vgg16.tv_in1k",
    ),
    decoupled=SegmentationStage(
        steps=STEPS[10],
        batch=64,
        size=(500, 500),  # That of most images, whose longer side has 500 pixels.
        fit="pad",
        interpolation="bicubic",
        crops=Combinatorial(
            crop=(320, 320), resized=(350, 350), windows=200, enlarge=(1.0, 3.0), beyond=True, flip=0.5
        ),
        optim=caffe(1e-2, LATE),
    ),
    deconvnet=DeconvNetStage(
        batch=64,
        size=(320, 320),
        fit="pad",
        augment=Augment(crop=(320, 320), scale=(1.0, 2.0), rotate_probability=0.0, flip=0.5),
        optim=caffe(1e-2, LATE),
        init_from="hf:timm/vgg16_bn.tv_in1k",
    ),
    paper={
        "decoupled": 0.574,
        "strong_only": 0.417,
        "deconvnet": 0.215,
        "table_1": {
            "budget.per_class": [*STEPS, None],
            "decoupled.steps+deconvnet.steps": [*STEPS.values(), FULL],
            "decoupled.optim.schedule.boundaries": [[4_000], [10_000], [10_000], [10_000]],
            "decoupled": [0.531, 0.574, 0.621, 0.675],
            "strong_only": [0.327, 0.417, 0.503, 0.675],
            "deconvnet": [0.153, 0.215, 0.386, 0.671],
        },
    },
)
