"""A linear head on a frozen DINOv2, supervised, on your own images, of which few have masks.

1. Lay out and prepare the folder PHOTOS under a name of your choice, as supervised_folder.py says:
     scarce-jax check --source PHOTOS
     scarce-jax prepare folder/mine --source PHOTOS
2. Train, and segment other photographs:
     scarce-jax train supervised_dinov2_folder --dataset folder/mine --workdir runs/mine
     scarce-jax predict runs/mine MORE_PHOTOS --out overlays

The weights are facebook/dinov2-small from the Hugging Face Hub. They are downloaded once, for which
`pip install 'scarce-jax[hub]'` is needed. Or fetch the file model.safetensors of that model elsewhere, and add
`--segmenter.init-from PATH/model.safetensors`. Other models, each with its flags:
  facebook/dinov2-base, -large           --segmenter.net.backbone.size base, large
  facebook/dinov2-with-registers-small   --segmenter.net.backbone.registers
each with --segmenter.init-from hf:NAME.

To fine-tune the whole net, with learning rates that decay by 0.9 from block to block towards the image:
--segmenter.net.backbone.frozen 0 --segmenter.optim.lr 1e-4. For a head of 3x3 convolutions: --segmenter.net.layers 2.

Paper: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (2023), section 7.4. The sizes are
multiples of its patches of 14 pixels, and for one GPU. No figure was measured with them. On a CPU: --segmenter.size 224
224 --segmenter.augment.crop 196 196 --segmenter.batch 4 --segmenter.steps 600.
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.supervised import Config
from scarce_jax.models.dinov2 import DINOv2Config
from scarce_jax.models.fcn import FCNConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer

# frozen=5 is all of it: the embeddings, and four quarters of the blocks.
backbone = DINOv2Config(size="small", frozen=5)

config = Config(
    dataset="folder/mine",
    budget=Budget(fine="all"),
    segmenter=SegmenterStage(
        steps=5_000,
        batch=8,
        # Whole photographs are resized to this size. Set it to the aspect ratio of yours if they are not square.
        size=(518, 518),
        augment=Augment(crop=(448, 448), scale=(0.5, 2.0), rotate=10.0, flip=0.5),
        net=FCNConfig(backbone=backbone, layers=0, channels=256),
        init_from="hf:facebook/dinov2-small",
        optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, layer_decay=0.9),
        eval_every=1_000,
    ),
)
