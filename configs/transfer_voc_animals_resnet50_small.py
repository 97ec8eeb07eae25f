"""Label and prediction transfer on VOC's animals from ImageNet's ResNet-50, for two CPU cores.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation". Cat, cow and person are strong; dog, horse and
sheep are weak. In place of VGG-16 all nets stand on a frozen ResNet-50 of stride 16; what it computes of the images is
kept in memory, and small heads are trained on that.

Command: scarce-jax prepare voc/animals --source VOC;
  scarce-jax train configs/transfer_voc_animals_resnet50_small.py --compare
`--cam.init-from FILE --lnet.init-from FILE --segmenter.init-from FILE` take weights from a file instead.
docs/pretrained.md has the figures.
"""

from scarce_jax.cpu.diffusion import Diffusion
from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.transfer import Config
from scarce_jax.methods.transfer.pnet import AdversarialStage, PNetStage
from scarce_jax.models.fcn import FCNConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.augment import Augment
from scarce_jax.optim import Optimizer, Schedule
from scarce_jax.runtime import Runtime

adam = Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4)
data = dict(
    batch=16,
    size=(160, 160),
    augment=Augment(crop=(160, 160), scale=(0.8, 1.25), rotate=5.0, flip=0.5),
    net=FCNConfig(backbone=ResNetConfig(depth=50, frozen=5), stride=16, layers=1, channels=128),
    init_from="hf:timm/resnet50.tv_in1k",
    cache=1,
    optim=adam,
    eval_batch=25,
)

config = Config(
    dataset="voc/animals",
    budget=Budget(strong_categories=("cat", "cow", "person")),
    cam=SegmenterStage(steps=700, **data),
    lnet=SegmenterStage(steps=500, **data),
    diffusion=Diffusion(
        segments=200,
        sigma2=0.02,
        foreground_seed=0.4,
        seed_objectness=0.9,
        background_map=0.3,
        background_objectness=0.15,
    ),
    segmenter=SegmenterStage(steps=800, **data),
    pnet=PNetStage(
        steps=200, batch=8, width=8, side=20, optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4), eval_batch=25
    ),
    adversarial=AdversarialStage(
        steps=150,
        batch=8,
        lambda_adv=0.01,
        optim=Optimizer(kind="adam", lr=1e-4, weight_decay=1e-4, schedule=Schedule(kind="constant")),
        pnet_optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, schedule=Schedule(kind="constant")),
    ),
    runtime=Runtime(checkpoint_every=500, log_every=50),
)
