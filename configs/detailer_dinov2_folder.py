"""The detailer on a frozen DINOv2, on your own images, with few fine masks and many coarse ones.

1. Lay out and prepare the folder PHOTOS under a name of your choice, as detailer_folder.py says:
     scarce-jax check --source PHOTOS
     scarce-jax prepare folder/mine --source PHOTOS
2. Train on the images with both masks (--compare also trains the plain classifier), and refine the coarse masks of
   other photographs:
     scarce-jax train detailer_dinov2_folder --dataset folder/mine --workdir runs/mine
     scarce-jax predict runs/mine MORE_PHOTOS --coarse THEIR_COARSE_MASKS --out overlays

The weights are facebook/dinov2-small; supervised_dinov2_folder.py says how to get them, and which others there are.
Flags there are of `segmenter`; here they are of `detailer`, and with --compare of `classifier` too: the comparison
wants equal ones.

To fine-tune the whole net, with learning rates that decay by 0.9 from block to block towards the image, for both
stages: --detailer.net.backbone.frozen 0 --detailer.optim.lr 1e-4.

Papers: Katsman et al., "Semantic Segmentation with Scarce Data"; Oquab et al., "DINOv2: Learning Robust Visual Features
without Supervision" (2023). The sizes are multiples of the patches of 14 pixels, and for one GPU. No figure was
measured with them. On a CPU, for both stages: --detailer.size 224 224 --detailer.augment.crop 196 196 --detailer.batch
4 --detailer.steps 600 --detailer.net.embedding 128.
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage
from scarce_jax.models.dinov2 import DINOv2Config
from scarce_jax.models.fcn import FCNConfig, FCNDetailerConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer

# frozen=5 is all of it: the embeddings, and four quarters of the blocks.
backbone = DINOv2Config(size="small", frozen=5)
# What the coarse mask says of a patch needs its neighbours, so the head is not linear.
net = dict(backbone=backbone, layers=2, channels=256)

shared = dict(
    steps=5_000,
    batch=8,
    # Whole photographs are resized to this size. Set it to the aspect ratio of yours if they are not square.
    size=(518, 518),
    augment=Augment(crop=(448, 448), scale=(0.5, 2.0), rotate=10.0, flip=0.5),
    init_from="hf:facebook/dinov2-small",
    optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, layer_decay=0.9),
    eval_every=1_000,
)

config = Config(
    dataset="folder/mine",
    budget=Budget(fine="all"),
    detailer=DetailerStage(net=FCNDetailerConfig(**net), **shared),
    classifier=SegmenterStage(net=FCNConfig(**net), **shared),
)
