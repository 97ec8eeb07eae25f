"""A supervised PSPNet on your own images, of which few have masks: from photographs to overlays.

1. Lay out the folder PHOTOS. Masks are PNG files of class ids with the names of their images; most images need none:
     PHOTOS/classes.json           {"classes": ["background", "cat", "dog"], "background": "background"}
     PHOTOS/train/images/a.jpg     PHOTOS/train/masks/a.png
     PHOTOS/val/images/b.jpg       PHOTOS/val/masks/b.png
2. Check the folder, and prepare it under a name of your choice:
     scarce-jax check --source PHOTOS
     scarce-jax prepare folder/mine --source PHOTOS
3. Train on the images of train with a mask, and measure on those of val with a mask. Then segment other photographs:
     scarce-jax train supervised_folder --dataset folder/mine --workdir runs/mine
     scarce-jax predict runs/mine MORE_PHOTOS --out overlays

The sizes are for one GPU, and no figure was measured with them. On a CPU: --segmenter.net.backbone.depth 18
--segmenter.net.backbone.width 32 --segmenter.size 192 192 --segmenter.augment.crop 128 128 --segmenter.batch 4
--segmenter.steps 600.
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.supervised import Config
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer

config = Config(
    dataset="folder/mine",
    budget=Budget(fine="all"),
    segmenter=SegmenterStage(
        steps=5_000,
        batch=8,
        # Whole photographs are resized to this size. Set it to the aspect ratio of yours if they are not square.
        size=(480, 480),
        augment=Augment(crop=(384, 384), scale=(0.5, 2.0), rotate=10.0, flip=0.5),
        net=PSPNetConfig(backbone=ResNetConfig(depth=50)),
        # As in supervised_scenes.py; no other optimizer was tried.
        optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),
        eval_every=1_000,
    ),
)
