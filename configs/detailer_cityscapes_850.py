"""The detailer on Cityscapes at 850 x 850: table 3 of the paper, column "higher res".

Paper: Katsman et al., "Semantic Segmentation with Scarce Data", section 5, "Higher Resolution". All settings except the
size are those of detailer_cityscapes.py. `paper` has its figures, mIoU. The column "lower res" is for 340 x 340; its
figures differ from those for the same setting in table 1. The paper gives no figures for classifier and students at
850 x 850. This config was not run.

Command: scarce-jax train configs/detailer_cityscapes_850.py --budget.fine 100
"""

import dataclasses
import pathlib
import runpy

from scarce_jax.ops.augment import Augment

_base = runpy.run_path(str(pathlib.Path(__file__).with_name("detailer_cityscapes.py")))

SIZE = (850, 850)
# Evaluation at native size needs 19 float32 maps of 1024 x 2048 for each image of a batch.
shared = {
    "size": SIZE,
    "augment": Augment(crop=SIZE, scale=(0.5, 2.0), rotate=10.0, flip=0.5),
    "eval_batch": 4,
}

config = dataclasses.replace(
    _base["config"],
    detailer=dataclasses.replace(_base["config"].detailer, **shared),
    classifier=dataclasses.replace(_base["config"].classifier, **shared),
    student=None,
    paper={
        "coarse": 0.4781,
        "detailer": 0.5287,
        "table_3": {
            "budget.fine": [10, 25, 50, 100, 200, 500],
            "higher_res": [0.4091, 0.4619, 0.4867, 0.5287, 0.5788, 0.5983],
            "lower_res": [0.4420, 0.5233, 0.5151, 0.5396, 0.5627, 0.5810],
        },
    },
)
