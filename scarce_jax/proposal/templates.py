"""The texts of the config files that `init` writes; `proposal.config` fills them in."""

STEPS = {
    "cpu": {"steps": "300", "judge": "100", "semi": "200", "classifier": "600", "decoupled": "300"},
    "gpu": {"steps": "5_000", "judge": "2_000", "semi": "5_000", "classifier": "10_000", "decoupled": "5_000"},
}
"""On a CPU so few that a run takes minutes."""

HEAD = '''"""{method} on {dataset}: {why}.

Written by `scarce-jax init` for {kind}. Nothing here was tuned for these photographs.

Command: scarce-jax train {file}
"""

'''

DATA = """    batch={batch},
    # (height, width) to which whole photographs are resized. Larger ones show more, and take longer.
    size={size},{fit}
    # Random changes of each training image; `crop` is what a step sees of it.
    augment=Augment(crop={crop}, scale={scale}, rotate=10.0, flip=0.5),
"""

BUDGET = """config = Config(
    dataset="{dataset}",{split}
    budget=Budget(fine="all"),  # Or a number of the images with fine masks.
"""

SUPERVISED = (
    HEAD
    + """from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.supervised import Config
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
{import_runtime}
stage = dict(
    steps={steps},  # More steps are better, up to a point: look at the curves of `scarce-jax report`.
"""
    + DATA
    + """    # To start from pretrained weights: `scarce-jax weights` lists some, with the flags of their backbones.
    net=PSPNetConfig(backbone={backbone}),
    optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),{every}
)

"""
    + BUDGET
    + """    segmenter=SegmenterStage(**stage),{runtime}
)
"""
)

DETAILER = (
    HEAD
    + """from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.detailer import Config, DetailerStage
from scarce_jax.models.detailer import DetailerConfig
from scarce_jax.models.pspnet import PSPNetConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
{import_runtime}
# To start from pretrained weights: `scarce-jax weights` lists some, with the flags of their backbones.
backbone = {backbone}

stage = dict(
    steps={steps},  # More steps are better, up to a point: look at the curves of `scarce-jax report`.
"""
    + DATA
    + """    optim=Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4),{every}
)

"""
    + BUDGET
    + """    detailer=DetailerStage(net=DetailerConfig({embedding}backbone=backbone), **stage),
    # Trained with --compare alone.
    classifier=SegmenterStage(net=PSPNetConfig(backbone=backbone), **stage),{runtime}
)
"""
)

AUXILIARY = (
    HEAD
    + """from scarce_jax.data.budget import Budget
from scarce_jax.methods.auxiliary import Config, SemiStage
from scarce_jax.methods.auxiliary.judge import AuxiliaryStage
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.models.dsnet import DSNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer
{import_runtime}
data = dict(
"""
    + DATA
    + """)
net = dict(
    net=DSNetConfig(width={width}),
    optim=Optimizer(kind="adam", lr=3e-3, weight_decay=1e-4),{every}
    **data,
)

"""
    + BUDGET
    + """    # First the images with masks. More steps are better, up to a point: see the curves of `scarce-jax report`.
    segmenter=SegmenterStage(steps={steps}, **net),
    auxiliary=AuxiliaryStage(
        steps={judge}, width={width}, optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4), **data
    ),
    # Then on pixels of the other images that are trusted above `threshold`.
    semi=SemiStage(steps={semi}, threshold=0.5, start="segmenter", labelled_batch={labelled_batch}, **net),{runtime}
)
"""
)

DECOUPLED = (
    HEAD
    + """from scarce_jax.data.budget import Budget
from scarce_jax.methods.decoupled import ClassifierStage, Config
from scarce_jax.methods.decoupled.figure_ground import SegmentationStage
from scarce_jax.models.decoupled import DecoupledClassifierConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.ops.combinatorial import Combinatorial
from scarce_jax.optim import Optimizer
{import_runtime}
# (height, width) to which whole photographs are resized. Larger ones show more, and take longer.
size = {crop}
net = DecoupledClassifierConfig(
    backbone=VGGConfig(width={width}, batch_norm=True, convolutions=(1, 1, 1, 1, 1)),
    hidden=256,
    fc6_kernel=2,
    dropout=0.0,
)

"""
    + BUDGET
    + """    # Which classes an image shows, from the tags of all images. More steps are better, up to a point.
    classifier=ClassifierStage(
        steps={classifier},
        batch={batch},
        size=size,
        # No crops, because an object that is cut off would leave a tag without its object.
        augment=Augment(crop=size, scale=(1.0, 1.0), rotate=0.0, flip=0.5),
        net=net,
        optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4),
    ),
    # Where a class is, from the images with masks.
    decoupled=SegmentationStage(
        steps={decoupled},
        batch={batch},
        size=size,
        crops=Combinatorial(crop=size, enlarge=(1.0, 3.0)),
        hidden=128,
        optim=Optimizer(kind="adam", lr=7e-4, weight_decay=1e-4),
    ),{runtime}
)
"""
)

TEXT = {"supervised": SUPERVISED, "detailer": DETAILER, "auxiliary": AUXILIARY, "decoupled": DECOUPLED}
"""Method -> text."""
