"""Three steps from image tags on VOC's animals, for two CPU cores: no mask is read in training.

Paper: Dobko, Viniavskiy and Dobosevych, "NoPeopleAllowed: The Three-Step Approach to Weakly Supervised Semantic
Segmentation". All nets are ResNet-50 of full width that start from ImageNet; images have 128 x 128 pixels and less, and
there are a few hundred steps of each. `--classifier.init-from FILE --irnet.init-from FILE --segmenter.init-from FILE`
take weights from a file instead.

Command: scarce-jax prepare voc/animals --source VOC; scarce-jax train three_step_voc_animals_small
"""

from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.three_step import Cams, ClassifierStage, Config, IRNetStage, Walk
from scarce_jax.models.deeplabv3plus import HEAD_PATTERN, DeepLabV3PlusConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.crf import CRF
from scarce_jax.optim import Group, Optimizer
from scarce_jax.recipe import Views
from scarce_jax.runtime import Runtime

net = dict(net=DeepLabV3PlusConfig(output_stride=16), init_from="hf:timm/resnet50.tv_in1k")


def adam(head: str) -> Optimizer:
    return Optimizer(kind="adam", lr=1e-4, weight_decay=1e-5, groups=(Group(pattern=head, lr=10.0), Group()))


def data(side: int, **changes) -> dict:
    augment = Augment(crop=(side, side), **{"scale": (0.75, 1.25), "rotate": 10.0, **changes})
    return dict(size=(side, side), augment=augment, eval_batch=25)


config = Config(
    dataset="voc/animals",
    # No crops, because an object that is cut off would leave a tag without its object.
    classifier=ClassifierStage(
        steps=250, batch=8, optim=adam("^classifier/"), **net, **data(128, scale=(1.0, 1.0), rotate=0.0)
    ),
    # One view, because the eight of the paper have almost seven times as many pixels. It is enlarged, so that maps are
    # 12 x 12.
    cams=Cams(views=Views(scales=(1.5,)), most=2, crf=CRF(bilateral_sigma=20, colour_sigma=5, bilateral_weight=10)),
    irnet=IRNetStage(
        steps=300,
        batch=8,
        radius=5,
        optim=Optimizer(kind="adam", lr=1e-3),
        init_from=net["init_from"],
        **data(128),
    ),
    walk=Walk(start="labels", steps=16, per_class=True),
    segmenter=SegmenterStage(steps=400, batch=4, optim=adam(HEAD_PATTERN), **net, **data(96, scale=(0.75, 1.5))),
    runtime=Runtime(checkpoint_every=500, log_every=20),
)
