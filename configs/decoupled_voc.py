"""The decoupled method on PASCAL VOC 2012: tables 1 and 2 of the paper.

Paper: Hong, Noh and Han, "Decoupled Deep Neural Network for Semi-supervised Semantic Segmentation". `paper` has its
figures, mIoU at native size, in table 1 on val and in table 2 on test, whose masks only the server of the challenge
has.

Nets, batch size of 64, learning rate, weight decay and crop are from the authors' published definitions. So are the
steps of the segmentation net and the step at which its rate falls, which depend on the number of masks of each class
(see `STEPS`); the images whose batch statistics are taken together, 4 of its 64 and 8 of DeconvNet's; and the averages
of these statistics over batches of 4 after the training. As there, windows may extend beyond the image, and are resized
to 350 x 350, of which a random part of 320 x 320 is cut; whole images are padded to a square and resized to 320 x 320;
and class probabilities of the decoupled nets are brought to the native size by bicubic interpolation. Ours are the
windows (there are no EdgeBoxes), the colour of the padding, which is the mean, not black, the scales of the
classifier's and of DeconvNet's crops, the learning rate of the classifier, the number of these batches (the authors
have 101), and the training of DeconvNet in one stage instead of two, with as many steps. This config was not run.

The paper says that the classifier's optimizer is DeconvNet's, whose rate is 0.01. Here the layer of the scores has it,
and all others a tenth, the ratio in the authors' definition of the net. It is for a sum over the 20 classes (`caffe`).

The steps are those for ten masks of each class. A sweep over the table sets the budget and all values that depend on
it; `--over paper.table_1=5` is one row. Full supervision is `--budget.per-class None`.

Command: scarce-jax prepare voc --source VOC; scarce-jax train decoupled_voc --compare
Table 1: scarce-jax sweep decoupled_voc --over paper.table_1 --workdir runs/table_1

Table 2 is measured by VOC's server, on the masks of: scarce-jax predict RUN --split test --no-overlays
--out results/VOC2012/Segmentation/comp6_test_cls. Figures 2 and 3 are maps of the report of a run, and of: scarce-jax
predict RUN IMAGES --result bridging (or class_maps) --out DIR
"""

from scarce_jax.data.budget import Budget
from scarce_jax.data.datasets import VOC
from scarce_jax.data.figures import printed
from scarce_jax.methods.decoupled import ClassifierStage, Config, DeconvNetStage
from scarce_jax.methods.decoupled.figure_ground import SegmentationStage
from scarce_jax.models import decoupled
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.optim import Optimizer, Schedule, caffe

STEPS = {5: 5_500, 10: 7_500, 25: 15_000}
FULL = 17_500

# With 5 masks of each class the authors' learning rate falls after 4,000 steps.
LATE = Schedule(kind="step", boundaries=(10_000,))


def of_tags(tags: int) -> Optimizer:
    """The optimizer of the classifier of so many tags."""
    return caffe(1e-3, Schedule(), head=decoupled.HEAD_PATTERN, terms=tags)


# The settings of a row of the tables, with 5, 10, 25 and all masks of each class.
ROWS = {
    "budget.per_class": [*STEPS, None],
    "decoupled.steps+deconvnet.steps": [*STEPS.values(), FULL],
    "decoupled.optim.schedule.boundaries": [[4_000], [10_000], [10_000], [10_000]],
}

# Table 2: IoU of each class on test, then their mean. The row of full supervision has its mean alone here.
TEST = (
    "87.4 70.4 40.9 60.4 36.3 61.2 67.3 67.7 64.6 12.8 60.2 26.4 63.2 69.6 64.8 53.1 34.7 65.3 34.4 57.0 50.5 54.7",
    "88.5 73.8 40.1 68.1 45.5 59.5 76.4 62.7 71.4 17.7 60.4 39.9 64.5 73.0 68.5 56.0 43.4 70.8 37.8 60.3 54.2 58.7",
    "90.1 75.8 41.7 70.4 46.4 66.2 83.0 69.9 76.7 23.1 61.2 43.3 70.4 75.7 74.1 65.7 46.2 73.8 39.7 61.9 57.6 62.5",
)

config = Config(
    dataset="voc",
    budget=Budget(per_class=10),
    classifier=ClassifierStage(
        steps=5_500,
        batch=64,
        size=(320, 320),
        fit="pad",
        augment=Augment(crop=(320, 320), scale=(1.0, 1.2), rotate_probability=0.0, flip=0.5),
        optim=of_tags(20),
        eval_every=1_100,
        init_from="hf:timm/vgg16.tv_in1k",
    ),
    decoupled=SegmentationStage(
        steps=STEPS[10],
        batch=64,
        statistics_groups=16,
        reestimate=2,
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
        statistics_groups=8,
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
            **ROWS,
            "decoupled": [0.531, 0.574, 0.621, 0.675],
            "strong_only": [0.327, 0.417, 0.503, 0.675],
            "deconvnet": [0.153, 0.215, 0.386, 0.671],
        },
        "table_2": {
            **ROWS,
            "split": ["test"] * 4,
            "decoupled": [*(printed((*VOC.classes, "miou"), row) for row in TEST), 0.666],
        },
    },
)
