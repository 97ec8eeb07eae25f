"""The detailer on your own images, with few fine masks and many coarse ones: from photographs to overlays.

1. Lay out the folder PHOTOS. A coarse mask has a few loose strokes or polygons of class ids, and 255 elsewhere:
     PHOTOS/classes.json           {"classes": ["background", "cat", "dog"], "background": "background"}
     PHOTOS/train/images/a.jpg     PHOTOS/train/coarse/a.png     PHOTOS/train/masks/a.png (few have one)
     PHOTOS/val/images/b.jpg       PHOTOS/val/coarse/b.png       PHOTOS/val/masks/b.png
   Without a folder `coarse`, coarse masks are simulated from the fine ones, which is useful only for trials.
2. Check the folder, and prepare it under a name of your choice:
     scarce-jax check --source PHOTOS
     scarce-jax prepare folder/mine --source PHOTOS
3. Train on the images with both masks (--compare also trains the plain classifier), measured on the images of val with
   both. Then refine the coarse masks of other photographs:
     scarce-jax train detailer_folder --dataset folder/mine --workdir runs/mine
     scarce-jax predict runs/mine MORE_PHOTOS --coarse THEIR_COARSE_MASKS --out overlays

Paper: Katsman et al., "Semantic Segmentation with Scarce Data". The sizes are for one GPU, and no figure was measured
with them. On a CPU, for both stages: --detailer.net.backbone.depth 18 --detailer.net.backbone.width 32
--detailer.size 192 192 --detailer.augment.crop 128 128 --detailer.batch 4 --detailer.steps 300
--detailer.net.embedding 128.
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer

shared = dict(
    steps=5_000,
    batch=8,
    # Whole photographs are resized to this size. Set it to the aspect ratio of yours if they are not square.
    size=(480, 480),
    augment=Augment(crop=(384, 384), scale=(0.5, 2.0), rotate=10.0, flip=0.5),
    # As in detailer_scenes.py; no other optimizer was tried.
    optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),
    eval_every=1_000,
)

backbone = ResNetConfig(depth=50)

config = Config(
    dataset="folder/mine",
    budget=Budget(fine="all"),
    detailer=DetailerStage(net=DetailerConfig(backbone=backbone), **shared),
    classifier=SegmenterStage(net=PSPNetConfig(backbone=backbone), **shared),
)
