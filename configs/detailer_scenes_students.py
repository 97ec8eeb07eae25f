"""The detailer on `scenes` with the paper's distillation: plain students on detailed and on coarse masks.

Paper: Katsman et al., "Semantic Segmentation with Scarce Data", section 5, "Distillation": 37.85 against 34.61 mIoU on
Cityscapes, for a ResNet-101 with ImageNet weights. A student without pretraining needs more steps than the quickstart.

Command: scarce-jax train detailer_scenes_students --compare [--reuse RUN of detailer_scenes --compare]
"""

import dataclasses

from scarce_jax.methods.detailer import StudentStage
from scarce_jax.shipped import variables

_base = variables("detailer_scenes")

_shared = {**_base["shared"], "steps": 900}
config = dataclasses.replace(
    _base["config"], student=StudentStage(images=100, net=_base["config"].classifier.net, **_shared)
)
