"""The detailer on Cityscapes at 850 x 850: table 3 of the paper, column "higher res".

Paper: Katsman et al., "Semantic Segmentation with Scarce Data", section 5, "Higher Resolution". All settings except the
size are those of detailer_cityscapes.py, which has the column "lower res". `paper` has the figures, mIoU of val, taken
to be measured at 850 x 850. The paper gives no figures for classifier and students at this size. This config was not
run.

Command: scarce-jax train detailer_cityscapes_850 --budget.fine 100
Table 3: scarce-jax sweep detailer_cityscapes_850 --over paper.table_3 --workdir runs/table_3
"""

import dataclasses

from scarce_jax.ops.augment import Augment
from scarce_jax.shipped import variables

_base = variables("detailer_cityscapes")

SIZE = (850, 850)
# Evaluation at native size needs 19 float32 maps of 1024 x 2048 for each image of a batch.
shared = {
    "size": SIZE,
    "augment": Augment(crop=SIZE, scale=(0.5, 2.0), rotate=10.0, flip=0.5),
    "eval_batch": 4,
}
FINE = [*_base["SCARCE"], 500]

config = dataclasses.replace(
    _base["config"],
    detailer=dataclasses.replace(_base["config"].detailer, **shared),
    classifier=dataclasses.replace(_base["config"].classifier, **shared),
    student=None,
    paper={
        "figure": "miou_at_size",
        "coarse": _base["COARSE"],
        "detailer": 0.5287,
        "table_3": {
            "budget.fine": FINE,
            "detailer.steps": [_base["STEPS"][fine] for fine in FINE],
            "detailer": [0.4091, 0.4619, 0.4867, 0.5287, 0.5788, 0.5983],
        },
    },
)
