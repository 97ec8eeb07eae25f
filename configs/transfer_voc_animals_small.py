"""Label and prediction transfer among VOC's animals, small enough for two CPU cores.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation"; here cat, cow and person are strong, dog,
horse and sheep weak, with small nets from scratch at 128 x 128 in place of VGG-16 with the weights of ImageNet.
Command: scarce-jax prepare voc/animals --source VOC; scarce-jax train configs/transfer_voc_animals_small.py
"""

from scarce_jax.data.budget import Budget
from scarce_jax.methods.common import SegmenterStage
from scarce_jax.methods.prediction_transfer import AdversarialStage, PNetStage
from scarce_jax.methods.transfer import Config
from scarce_jax.ops.warp import Augment
from scarce_jax.training.optim import Optimizer, Schedule
from scarce_jax.training.recipe import Runtime

data = dict(batch=8, size=(128, 128), augment=Augment(crop=(112, 112), scale=(0.75, 1.5), rotate=10.0, flip=0.5))
net = dict(net="pspnet", depth=18, width=32, eval_batch=16, **data)
adam = Optimizer(kind="adam", lr=2e-3, weight_decay=1e-4)

config = Config(
    dataset="voc/animals",
    budget=Budget(strong_categories=("cat", "cow", "person")),
    cam=SegmenterStage(steps=2_000, optim=adam, **net),
    lnet=SegmenterStage(steps=1_200, optim=adam, **net),
    segmenter=SegmenterStage(steps=1_500, optim=adam, **net),
    pnet=PNetStage(
        steps=300, batch=8, side=56, optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4), eval_batch=16
    ),
    adversarial=AdversarialStage(
        steps=400,
        batch=8,
        optim=Optimizer(kind="adam", lr=1e-4, weight_decay=1e-4, schedule=Schedule(kind="constant")),
        pnet_optim=Optimizer(kind="adam", lr=1e-3, weight_decay=1e-4, schedule=Schedule(kind="constant")),
    ),
    runtime=Runtime(checkpoint_every=200, log_every=20),
)
