"""Three steps from image tags on the LID Challenge: tables 1 to 3 of the paper.

Paper: Dobko, Viniavskiy and Dobosevych, "NoPeopleAllowed: The Three-Step Approach to Weakly Supervised Semantic
Segmentation". `paper` has its figures on val at native size; that of table 1 is on test, whose masks only the server of
the challenge has, and the paper does not say whether with "person". "person" is left out, and a binary classifier adds
it back.

Nets, optimizers, sizes, batch sizes and epochs are those of the paper or of the authors' published settings. Ours are
the number of images kept of each class (the paper has 85,819 images after balancing), the images of the binary
classifier, rates that decay by steps in place of epochs, and how "person" is added. As in the code of IRNet's authors,
its ResNet is not dilated, class activation maps are divided by class, and biases have no rate of their own; so are the
thresholds for IRNet's labels, since those of this paper's code leave nearly no pixel void. Maps are inferred for all
images with tags, not for the balanced ones alone. This config was not run.

A sweep over table 3 sets the encoder and the threshold after IRNet.

Command: scarce-jax prepare lid --source LID; scarce-jax train three_step_lid
Table 3: scarce-jax sweep three_step_lid --over paper.table_3 --workdir runs/table_3
"""

from scarce_jax.data.sampling import ClassBalance
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.three_step import ClassifierStage, Config, IRNetStage, Walk, strong
from scarce_jax.models import cam_vgg, deeplabv3plus
from scarce_jax.models.cam_vgg import CamVGGConfig
from scarce_jax.models.deeplabv3plus import DeepLabV3PlusConfig
from scarce_jax.models.irnet import DISPLACEMENT_PATTERN
from scarce_jax.optim import Group, Optimizer, Schedule

IMAGES = 72_946
CONFIDENT = 41_156
RESNET = "hf:timm/resnet{}.tv_in1k"


def of_dataset(dataset: str, images: int, confident: int, *, balance=None, binary_balance=None, **fields) -> Config:
    """The paper's settings for a dataset with so many training images, and so many of sure tags.

    `binary_balance` trains a binary classifier. `fields` are further fields of the config.
    """
    epoch = images // 40
    # Every three epochs a fifth, for fifteen epochs; then it is less than a thousandth.
    schedule = Schedule(kind="step", boundaries=tuple(k * epoch for k in range(3, 18, 3)), factor=0.2)
    sized = dict(size=(352, 352), augment=strong((352, 352)))
    classifier = dict(
        epochs=50,
        batch=40,
        net=CamVGGConfig(),
        optim=Optimizer(
            kind="adam_l2",
            lr=1e-4,
            weight_decay=1e-5,
            schedule=schedule,
            groups=(Group(pattern=cam_vgg.HEAD_PATTERN, lr=10.0), Group()),
        ),
        held_out=0.15,
        eval_every=epoch,
        keep_best="mean_f1",
        init_from="hf:timm/vgg16_bn.tv_in1k",
        **sized,
    )
    return Config(
        dataset=dataset,
        classifier=ClassifierStage(**classifier, balance=balance),
        irnet=IRNetStage(
            epochs=20,
            batch=32,
            size=(512, 512),
            augment=strong((512, 512)),
            optim=Optimizer(
                lr=0.005,
                momentum=0.9,
                weight_decay=1e-4,
                groups=(Group(pattern=DISPLACEMENT_PATTERN, lr=10.0), Group()),
            ),
            init_from=RESNET.format(50),
        ),
        walk=Walk(threshold=0.3),
        segmenter=SegmenterStage(
            epochs=40,
            batch=12,
            net=DeepLabV3PlusConfig(),
            optim=Optimizer(
                lr=0.001,
                momentum=0.9,
                weight_decay=1e-6,
                groups=(Group(pattern=deeplabv3plus.HEAD_PATTERN, lr=10.0), Group()),
            ),
            eval_every=confident // 12,
            keep_best="miou",
            init_from=RESNET.format(50),
            **sized,
        ),
        binary=None if binary_balance is None else ClassifierStage(**classifier, balance=binary_balance),
        **fields,
    )


config = of_dataset(
    "lid",
    IMAGES,
    CONFIDENT,
    balance=ClassBalance(at_most=500),
    binary_balance=ClassBalance(at_most=IMAGES // 2),
    left_out="person",
    paper={
        "cam": 0.3106,
        "irnet": 0.3187,
        "segment": 0.3665,
        "segment_tta": 0.3964,
        "segment_tta_added": 0.3980,
        "table_1": {
            "walk.threshold": [0.3],
            "split": ["test"],
            "segment_tta": [{"miou": 0.3734, "mean_accuracy": 0.5487, "pixel_accuracy": 0.8364}],
        },
        "table_2": {"walk.threshold": [0.3], "cam": [0.3106], "irnet": [0.3187], "segment_tta": [0.3964]},
        "table_3": {
            "segmenter.net.backbone.depth": [50, 50, 101],
            "segmenter.init_from": [RESNET.format(50), RESNET.format(50), RESNET.format(101)],
            "walk.threshold": [0.3, 0.5, 0.5],
            "segment": [0.3665, 0.3711, 0.3614],
            "segment_tta": [0.3964, 0.3958, 0.3715],
            "segment_tta_added": [0.3980, None, None],
        },
    },
)
