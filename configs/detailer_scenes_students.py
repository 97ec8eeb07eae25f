"""The detailer on `scenes` with the paper's distillation: plain students on detailed and on coarse masks.

Paper: Katsman et al., "Semantic Segmentation with Scarce Data", section 5, "Distillation": 37.85 against 34.61 mIoU on
Cityscapes, for a ResNet-101 with ImageNet weights. A student without pretraining needs more steps than the quickstart.

Command: scarce-jax train configs/detailer_scenes_students.py --compare [--reuse RUN of detailer_scenes --compare]
"""

import dataclasses
import pathlib
import runpy

from scarce_jax.methods.detailer import StudentStage

_base = runpy.run_path(str(pathlib.Path(__file__).with_name("detailer_scenes.py")))

_shared = {**_base["shared"], "steps": 900}
config = dataclasses.replace(
    _base["config"], student=StudentStage(images=100, net=_base["config"].classifier.net, **_shared)
)
