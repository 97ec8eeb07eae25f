"""Auxiliary confidence on Cityscapes with DeepLab-v2: the paper's comparison with Hung et al., its table 6.

Paper: "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review). It uses "the same
settings" as Hung et al., "Adversarial Learning for Semi-Supervised Semantic Segmentation": batch 2 at 512 x 1024,
40,000 steps, and batch normalisation with frozen scale and bias. The auxiliary net has the paper's batch of 4. `paper`
has the figures of our method and of theirs; theirs with adversarial learning alone is that with both lambdas of the
unlabelled images 0, which leaves these images out. With all images labelled `labelled_only` is the supervised net. Both
start from a ResNet-101 that was pretrained on other images. No such weights are shipped; `--segmenter.init-from`,
`--semi.init-from` and `--adversarial.init-from` take a file. The net reads images as the files of Hung et al. want
them; for torchvision's weights each of the three also needs `--X.net.backbone.geometry torchvision
--X.net.backbone.normalisation imagenet`.

Command: scarce-jax train auxiliary_cityscapes_deeplabv2 --compare --budget.fine 0.125
Table 6: scarce-jax sweep auxiliary_cityscapes_deeplabv2 --over paper.table_6 --workdir runs/table_6
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.adversarial import AdversarialStage
from scarce_jax.methods.auxiliary import Config, SemiStage
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.models.deeplab import AFFINE_PATTERN, HEAD_PATTERN, DeepLabV2Config
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Group, Optimizer

SIZE = (512, 1024)

data = dict(
    batch=2,
    size=SIZE,
    augment=Augment(crop=SIZE, scales=(0.75, 1.0, 1.25, 1.5, 1.75), rotate_probability=0.0, translate=2, flip=0.5),
)
net = dict(
    net=DeepLabV2Config(backbone=ResNetConfig(depth=101, geometry="caffe", normalisation="caffe")),
    steps=40_000,
    optim=Optimizer(
        lr=2.5e-4,
        weight_decay=5e-4,
        groups=(Group(pattern=AFFINE_PATTERN, lr=0.0), Group(pattern=HEAD_PATTERN, lr=10.0), Group()),
    ),
    eval_every=10_000,
    **data,
)

# Of the auxiliary net.
data |= {"batch": 4}

config = Config(
    dataset="cityscapes",
    budget=Budget(fine=0.5),
    segmenter=SegmenterStage(**net),
    auxiliary=AuxiliaryStage(epochs=50, optim=Optimizer(kind="adam_l2", lr=5e-4, weight_decay=1e-4), **data),
    semi=SemiStage(threshold=0.9, **net),
    adversarial=AdversarialStage(**net),
    paper={
        "figure": "miou_at_size",
        "semi": 0.677,
        "labelled_only": 0.661,
        "all_labels": 0.696,
        "adversarial": 0.657,
        # The last four rows are those of Hung et al. with adversarial learning alone.
        "table_6": {
            "budget.fine": [0.125, 0.25, 0.5, "all"] * 2,
            "adversarial.lambda_semi": [0.1] * 4 + [0.0] * 4,
            "adversarial.lambda_semi_adv": [0.001] * 4 + [0.0] * 4,
            "semi": [0.607, 0.655, 0.677, *[None] * 5],
            "labelled_only": [0.568, 0.630, 0.661, 0.696, *[None] * 4],
            "adversarial": [0.588, 0.623, 0.657, None, 0.571, 0.618, 0.646, 0.677],
        },
    },
)
