"""Three steps from image tags on `scenes/coloured`, for two CPU cores: no mask is read in training.

Paper: Dobko, Viniavskiy and Dobosevych, "NoPeopleAllowed: The Three-Step Approach to Weakly Supervised Semantic
Segmentation", here on the built-in pictures, with small nets from scratch in place of VGG-16 and ResNet-50 with
ImageNet's weights. IRNet stands on the classifier's ResNet.

Command: scarce-jax train three_step_scenes
"""

import dataclasses

from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.three_step import Cams, ClassifierStage, Config, IRNetStage, Walk
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusConfig
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.crf import CRF
from scarce_jax.optim import Optimizer
from scarce_jax.recipe import Views
from scarce_jax.runtime import Runtime

backbone = ResNetConfig(depth=18, width=16)
adam = Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4)


def data(side: int, **changes) -> dict:
    augment = Augment(**{"crop": (side, side), "scale": (0.75, 1.25), "rotate": 10.0, **changes})
    return dict(batch=8, size=(side, side), augment=augment)


config = Config(
    dataset="scenes/coloured",
    classifier=ClassifierStage(
        steps=900,
        # Maps of 16 x 16. Of 8 x 8, at output stride 16, they had an mIoU of 0.30 instead of 0.35 (seed 0, training
        # images, best threshold).
        net=DeepLabV3PlusConfig(output_stride=8, backbone=backbone),
        optim=adam,
        eval_batch=20,
        # No crops, because an object that is cut off would leave a tag without its object.
        **data(128, scale=(1.0, 1.0), rotate=0.0),
    ),
    cams=Cams(
        most=6,
        # Pictures show up to six classes; few have all of them above the paper's 0.8.
        confidence=0.1,
        foreground=0.6,
        background=0.4,
        crf=CRF(bilateral_sigma=30, colour_sigma=5, bilateral_weight=10),
    ),
    # Enlarged, because boundaries have a quarter of the image's size.
    irnet=IRNetStage(
        steps=500,
        radius=5,
        optim=dataclasses.replace(adam, weight_decay=0.0),
        eval_batch=10,
        backbone=backbone,
        **data(192),
    ),
    # From the maps themselves 256 steps spread classes over the background: 0.31 instead of 0.475 (seed 0,
    # training images), where the CRF's labels had 0.46.
    walk=Walk(start="labels", steps=16, beta=20.0, threshold=0.2),
    segmenter=SegmenterStage(
        steps=1_500,
        net=DSNetConfig(width=16),
        optim=adam,
        eval_batch=20,
        **data(128, crop=(64, 64), scale=(0.5, 1.5)),
    ),
    # Mirrored alone: with the paper's scales of 0.5, 1 and 2 the mIoU was 0.372 instead of 0.394, and 0.391 without TTA
    # (seed 0). The larger scale is beyond those of training, which cost 0.04 when they went up to 2.
    tta=Views(flip=True, average="logits"),
    runtime=Runtime(checkpoint_every=500, log_every=20),
)
