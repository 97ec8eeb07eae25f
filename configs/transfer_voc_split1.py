"""Label and prediction transfer on PASCAL VOC 2012, split-set 1: ten strong and ten weak categories.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(a) and (b). `paper` has its figures,
IoU on val at native size, for every class and all of them; those of the strong and of the weak categories are the means
of the figures that the paper prints. Its `table_2` has all four split-sets, `table_3` those on test after a CRF, whose
masks only the server of the challenge has, and `ablation` the P-Net without pre-training, which improves by 0.5 points.

The paper specifies the nets, crop, batch size and epochs of the L-Net, and its "initial" learning rate of 5e-8, which
is for a loss that is summed over 321 x 321 pixels (see `caffe`). It trains the segmenter as DeepLab-LargeFOV (Chen et
al., 2015), and specifies learning rates and epochs of `adversarial`. As there, crops are of images at their native
size, and masks are predicted of whole images at their native size, padded to 513 x 513. Ours are the schedule of the
L-Net, the training of `cam` (1e-3 for a sum over the tags, as in Caffe) and `pnet`, lambda, and the size of the P-Net's
masks. It is that of the segmenter's logits: at 321 x 321 they would have smoother outlines than true masks, whatever
the segmenter learns. This config was not run.

ImageNet weights are downloaded. `--cam.init-from`, `--lnet.init-from` and `--segmenter.init-from` take a file instead.

Command: scarce-jax prepare voc --source VOC; scarce-jax train transfer_voc_split1 --compare
Table 2: scarce-jax sweep transfer_voc_split1 --over paper.table_2 --workdir runs/table_2

Of the self-diffusion the paper prints objective, features and affinity. Superpixels, thresholds and the seeds of the
background are ours: the printed objective alone has one minimiser, which is constant (see `cpu.diffusion`).

Table 3 is measured by VOC's server, on the masks of: scarce-jax predict RUN --split test --crf largefov --no-overlays
--out results/VOC2012/Segmentation/comp6_test_cls. Figure 3 is in the report of a run, and figure 5, the L-Net on other
images, is: scarce-jax predict RUN IMAGES --result lnet_map --out DIR
"""

import dataclasses
from typing import Any

from scarce_jax.data.budget import Budget
from scarce_jax.data.categories import SPLIT_SETS
from scarce_jax.data.datasets import VOC
from scarce_jax.data.figures import mean, printed
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.transfer import Config
from scarce_jax.methods.transfer.pnet import AdversarialStage, PNetStage
from scarce_jax.models import cam_vgg, largefov
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer, Schedule, caffe

IMAGES, STRONG = 10_582, 5_078
BATCH = 30

# Images of each split-set that only show strong categories, and all of its images.
STRONG_IMAGES = (STRONG, 3_359, 3_484, 16_241)
ALL_IMAGES = (IMAGES, IMAGES, IMAGES, 16_241 + IMAGES)
TAGS = (20, 20, 20, 80)
# No image of VOC is larger than 500 x 500, and none of COCO than 640 x 640. LargeFOV's grid of stride 8 ends at the
# last pixel of 8 * 64 + 1 and of 8 * 80 + 1.
SIDE = 513
SIDES = (SIDE, SIDE, SIDE, 641)

net = dict(
    net=largefov.LargeFOVConfig(dropout=0.5),
    batch=BATCH,
    size=(SIDE, SIDE),
    fit="native",
    augment=Augment(crop=(321, 321), scale=(1.0, 1.0), rotate_probability=0.0, flip=0.5),
    init_from="hf:timm/vgg16.tv_in1k",
    eval_batch=8,
)


CONSTANT = Schedule(kind="constant")


def deeplab(lr: float, schedule: Schedule, terms: int = 1) -> Optimizer:
    """The optimizer of a LargeFOV."""
    return caffe(lr, schedule, head=largefov.HEAD_PATTERN, terms=terms)


def of_tags(tags: int) -> Optimizer:
    """The optimizer of the classifier of so many tags."""
    return caffe(1e-3, Schedule(), head=cam_vgg.HEAD_PATTERN, terms=tags)


# Table 2: IoU of each class on val, then their mean.
FULLY_SUPERVISED = (
    "90.2 73.2 31.0 73.7 58.6 63.5 81.4 74.5 76.9 28.4 62.7 49.9 69.4 61.5 67.1 76.1 46.2 67.8 42.0 74.1 52.6 62.9"
)
LNET = (
    "89.6 74.0 30.8 66.8 58.7 43.1 80.8 75.6 76.3 28.3 61.7 48.8 66.5 60.7 68.2 76.0 30.4 68.8 27.4 65.8 53.1 59.6",
    "87.1 72.8 30.7 71.7 50.6 62.4 76.3 71.3 73.2 17.5 59.1 15.4 68.3 60.9 65.5 50.6 43.5 67.9 39.5 71.4 45.7 57.2",
    "89.1 58.3 33.5 71.1 34.8 42.0 75.4 67.7 74.9 27.1 62.2 24.5 70.5 61.1 67.5 76.4 31.2 68.4 25.5 74.2 47.5 56.4",
    "86.5 70.9 26.3 70.1 46.3 55.3 73.9 67.6 72.9 20.6 61.4 21.2 66.1 60.5 63.2 55.2 32.7 66.3 34.2 64.4 44.9 55.3",
)
PNET = (
    "90.0 74.0 30.9 64.3 59.6 43.4 82.8 76.7 77.7 27.8 66.0 51.2 68.4 63.7 68.5 76.7 33.4 71.6 28.4 64.3 55.0 60.7",
    "87.7 74.4 31.1 72.6 53.9 62.7 77.1 73.0 73.9 17.5 61.8 16.6 70.3 62.2 66.8 51.5 45.0 69.3 40.0 72.8 49.0 58.5",
    "89.3 57.2 34.5 71.2 38.6 44.5 77.7 67.5 76.2 24.3 64.5 25.8 72.9 63.8 69.5 77.3 32.1 71.8 27.4 77.9 44.1 57.5",
    "87.1 71.2 25.1 69.9 48.5 56.2 75.7 67.1 75.0 19.2 63.8 22.3 67.0 64.2 62.9 55.1 35.2 69.6 34.4 67.2 43.1 56.2",
)


def cited(number: int, row: str) -> dict[str, float]:
    """The figures of a row of table 2 for a split-set; that of split-set 4 is a mean over VOC's 21 classes of 81."""
    *of_classes, total = printed((*VOC.classes, "miou"), row).items()
    by_class, strong = dict(of_classes), SPLIT_SETS[f"split-set-{number}"]
    groups = {
        "strong": [k for k in VOC.classes[1:] if k in strong],
        "weak": [k for k in VOC.classes[1:] if k not in strong],
    }
    means = {f"miou_{name}": round(mean([by_class[k] for k in group]), 4) for name, group in groups.items() if group}
    return {"miou" if number < 4 else "miou_weak_and_background": total[1], **means, **by_class}


SPLITS = {
    "budget.strong_categories": [[f"split-set-{number}"] for number in range(1, 5)],
    "dataset": ["voc", "voc", "voc", "coco/with_voc"],
    **{f"{stage}.size": [[side, side] for side in SIDES] for stage in ("cam", "lnet", "segmenter")},
    "cam.steps": [15 * images // BATCH for images in ALL_IMAGES],
    "cam.optim.lr": [of_tags(tags).lr for tags in TAGS],
    "cam.optim.weight_decay": [of_tags(tags).weight_decay for tags in TAGS],
    "lnet.steps": [30 * images // BATCH for images in STRONG_IMAGES],
    "pnet.steps": [5 * images // BATCH for images in STRONG_IMAGES],
    "adversarial.steps": [30 * images // BATCH for images in ALL_IMAGES],
}

config = Config(
    dataset="voc",
    budget=Budget(strong_categories=("split-set-1",)),
    cam=SegmenterStage(steps=15 * IMAGES // BATCH, optim=of_tags(20), **net),
    lnet=SegmenterStage(steps=30 * STRONG // BATCH, optim=deeplab(5e-8, Schedule(), terms=321**2), **net),
    segmenter=SegmenterStage(
        steps=6_000,
        optim=deeplab(1e-3, Schedule(kind="step", boundaries=(2_000, 4_000))),
        eval_every=2_000,
        **net,
    ),
    pnet=PNetStage(
        steps=5 * STRONG // BATCH,
        batch=BATCH,
        side=41,
        optim=Optimizer(lr=1e-3, weight_decay=5e-4, schedule=CONSTANT),
        eval_batch=8,
    ),
    adversarial=AdversarialStage(
        steps=30 * IMAGES // BATCH,
        batch=BATCH,
        optim=deeplab(1e-5, CONSTANT),
        pnet_optim=Optimizer(lr=1e-3, weight_decay=5e-4, schedule=CONSTANT),
        eval_every=2_000,
    ),
    paper={
        "pnet": cited(1, PNET[0]),
        "lnet": cited(1, LNET[0]),
        "all_labels": cited(1, FULLY_SUPERVISED),
        "table_2": {
            **SPLITS,
            "pnet": [cited(number, row) for number, row in enumerate(PNET, start=1)],
            "lnet": [cited(number, row) for number, row in enumerate(LNET, start=1)],
            "all_labels": [cited(1, FULLY_SUPERVISED), None, None, None],
        },
        "table_3": {
            **SPLITS,
            "split": ["test"] * 4,
            "pnet": [0.646, 0.619, 0.595, {"miou_weak_and_background": 0.580}],
        },
        "ablation": {"budget.strong_categories": [["split-set-1"]], "pnet_scratch": [{}], "lnet": [cited(1, LNET[0])]},
        "gains": [
            {"table": "ablation", "rows": [["split-set-1"]], "of": "pnet_scratch", "less": "lnet", "paper": 0.005},
        ],
    },
)


def of_split(number: int, **changes: Any) -> Config:
    """The config of another split-set, with its steps and the paper's figures."""
    strong, images, side = STRONG_IMAGES[number - 1], ALL_IMAGES[number - 1], SIDES[number - 1]
    size = (side, side)
    # The paper has one fully supervised baseline, on VOC.
    baseline = {"all_labels": cited(number, FULLY_SUPERVISED)} if number < 4 else {}
    return dataclasses.replace(
        config,
        budget=Budget(strong_categories=(f"split-set-{number}",)),
        cam=dataclasses.replace(config.cam, size=size, steps=15 * images // BATCH, optim=of_tags(TAGS[number - 1])),
        lnet=dataclasses.replace(config.lnet, size=size, steps=30 * strong // BATCH),
        segmenter=dataclasses.replace(config.segmenter, size=size),
        pnet=dataclasses.replace(config.pnet, steps=5 * strong // BATCH),
        adversarial=dataclasses.replace(config.adversarial, steps=30 * images // BATCH),
        paper={"pnet": cited(number, PNET[number - 1]), "lnet": cited(number, LNET[number - 1]), **baseline},
        **changes,
    )
