"""Auxiliary confidence on Cityscapes at 512 x 1024 with the paper's real-time net: its tables 2 to 6.

Paper: "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review). `paper` has its
figures, for an encoder pretrained on ImageNet, which was not published. This config starts from random values. The
paper measures val at 512 x 1024, and test (its table 2) at native size by the server of the benchmark. With all images
labelled, its column "1 + 0", `labelled_only` is the supervised net; `all_labels` of another budget weights the classes
by their shares in the labelled images alone. Tables 3 and 4 are the tables `selection` and `selection_classes`; the
paper's "selected pixels" are a share of all pixels, void ones too: "selected of image". In table 5 the threshold of 1
is the supervised net, as the paper's figure is.

The paper does not say how far images are moved; here it is up to 2 pixels. It draws its labelled images at random and
does not publish them. The lists of UniMatch (1_8, 1_4 and 1_2_labeled.txt) can be used with `--budget.fine FILE`.

Command: scarce-jax prepare cityscapes --source CITYSCAPES; scarce-jax train auxiliary_cityscapes --compare
Table 6: scarce-jax sweep auxiliary_cityscapes --over paper.table_6 --workdir runs/table_6
"""

from scarce_jax.data.budget import Budget
from scarce_jax.data.figures import printed
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

# Tables 3 and 4, by threshold. Of each class: its IoU in percent, then the share of its pixels that are kept.
SELECTION = {
    "0": {"mIoU": 0.703, "class semi ratio": 1.0, "selected of image": 1.0},
    "0.7": {"mIoU": 0.837, "class semi ratio": 0.756, "selected of image": 0.861},
    "0.8": {"mIoU": 0.856, "class semi ratio": 0.712, "selected of image": 0.833},
    "0.9": {"mIoU": 0.882, "class semi ratio": 0.642, "selected of image": 0.780},
}
KEPT = [f"{figure} at {threshold}" for threshold in SELECTION for figure in ("IoU", "ratio")]
CLASSES = {
    "road": "97.4 100 99.0 95.7 99.2 95.0 99.4 93.4",
    "sidewalk": "80.5 100 91.0 83.0 92.1 79.9 93.5 75.0",
    "building": "90.9 100 96.5 85.4 97.1 82.5 97.8 77.4",
    "wall": "49.2 100 62.1 67.9 63.8 62.8 66.7 54.6",
    "fence": "52.8 100 67.5 68.5 70.0 63.0 73.8 54.8",
    "pole": "59.4 100 78.0 72.2 82.0 66.3 87.5 56.0",
    "traffic light": "63.5 100 81.6 74.4 85.2 68.7 89.9 59.3",
    "traffic sign": "71.9 100 88.0 79.5 90.3 75.1 93.2 67.8",
    "vegetation": "91.3 100 97.4 86.1 97.9 83.4 98.6 78.7",
    "terrain": "59.4 100 74.1 72.2 76.3 67.7 80.1 60.4",
    "sky": "93.5 100 98.6 91.4 98.8 89.5 99.2 86.4",
    "person": "75.5 100 90.6 80.5 92.8 75.8 95.2 67.6",
    "rider": "53.8 100 71.1 67.2 75.3 59.0 81.0 46.8",
    "car": "92.7 100 98.6 89.4 98.9 87.4 99.3 83.9",
    "truck": "68.7 100 86.7 70.8 88.0 67.4 89.9 62.3",
    "bus": "70.9 100 89.1 70.6 90.8 67.3 93.1 62.2",
    "train": "51.3 100 71.0 52.9 73.1 47.4 76.0 39.9",
    "motorcycle": "42.7 100 62.3 52.4 65.1 44.5 68.3 33.3",
    "bicycle": "70.1 100 86.7 76.8 89.9 70.7 93.6 60.6",
}
SELECTION_CLASSES = {name: printed(KEPT, row) for name, row in CLASSES.items()}

config = Config(
    dataset="cityscapes",
    budget=Budget(fine=0.5),
    segmenter=SegmenterStage(epochs=200, **net),
    auxiliary=AuxiliaryStage(epochs=50, optim=Optimizer(kind="adam_l2", lr=5e-4, weight_decay=1e-4), **data),
    semi=SemiStage(epochs=200, threshold=0.9, **net),
    adversarial=AdversarialStage(epochs=400, **net),
    paper={
        "figure": "miou_at_size",
        "semi": 0.715,
        "labelled_only": 0.703,
        "all_labels": 0.744,
        "selection": SELECTION,
        "selection_classes": SELECTION_CLASSES,
        "table_2": {"budget.fine": ["all"], "split": ["test"], "labelled_only": [{"miou": 0.739}]},
        "table_3": {"budget.fine": [0.5], "selection": [SELECTION]},
        "table_4": {"budget.fine": [0.5], "selection_classes": [SELECTION_CLASSES]},
        "table_5": {
            "semi.threshold": [0.0, 0.7, 0.8, 0.9, 1.0],
            "semi": [0.699, 0.713, 0.714, 0.715, None],
            "labelled_only": [None, None, None, None, 0.703],
        },
        "table_6": {
            "budget.fine": [0.125, 0.25, 0.5, "all"],
            "semi": [0.602, 0.684, 0.715, None],
            "labelled_only": [0.577, 0.655, 0.703, 0.744],
        },
    },
)
