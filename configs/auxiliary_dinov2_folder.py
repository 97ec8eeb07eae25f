"""Auxiliary confidence on a frozen DINOv2, on your own images, of which few have masks: pseudo labels for the others.

1. Lay out and prepare the folder PHOTOS under a name of your choice, as supervised_folder.py says:
     scarce-jax check --source PHOTOS
     scarce-jax prepare folder/mine --source PHOTOS
2. Train (--compare also trains on the labelled images alone for as long, and on all labels), and segment other
   photographs:
     scarce-jax train auxiliary_dinov2_folder --dataset folder/mine --workdir runs/mine
     scarce-jax predict runs/mine MORE_PHOTOS --out overlays

The weights are facebook/dinov2-small; supervised_dinov2_folder.py says how to get them, and which others there are.
Give its flags of the net to `segmenter` and to `semi`, and --segmenter.init-from to `segmenter` alone: `semi` starts
from the trained segmenter.

To fine-tune the whole net in the stage `semi`, with learning rates that decay by 0.9 from block to block towards the
image: --semi.net.backbone.frozen 0 --semi.optim.lr 1e-4.

Papers: "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review); Oquab et al.,
"DINOv2: Learning Robust Visual Features without Supervision" (2023). The sizes are multiples of the patches of 14
pixels, and for one GPU. No figure was measured with them.
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.auxiliary import Config, SemiStage
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.models.dinov2 import DINOv2Config
from scarce_jax.models.fcn import FCNConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer

# frozen=5 is all of it: the embeddings, and four quarters of the blocks.
backbone = DINOv2Config(size="small", frozen=5)

data = dict(
    batch=8,
    # Whole photographs are resized to this size. Set it to the aspect ratio of yours if they are not square.
    size=(518, 518),
    augment=Augment(crop=(448, 448), scale=(0.5, 2.0), rotate=10.0, flip=0.5),
)
net = dict(
    net=FCNConfig(backbone=backbone, layers=2, channels=256),
    optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, layer_decay=0.9),
    eval_every=1_000,
    **data,
)

config = Config(
    dataset="folder/mine",
    budget=Budget(fine="all"),
    segmenter=SegmenterStage(steps=5_000, init_from="hf:facebook/dinov2-small", **net),
    auxiliary=AuxiliaryStage(steps=2_000, optim=Optimizer(kind="adam", lr=5e-4, weight_decay=5e-4), **data),
    semi=SemiStage(steps=5_000, start="segmenter", labelled_batch=4, **net),
)
