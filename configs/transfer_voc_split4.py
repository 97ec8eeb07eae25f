"""Label and prediction transfer to PASCAL VOC 2012 from 60 other categories of COCO: split-set 4.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(e): mIoU 0.562 (P-Net) and 0.553
(L-Net) over VOC's 21 classes, which here is the mean of the background and `miou_weak`; `miou` is over all 81. All else
as in transfer_voc_split1.py. Nothing of it was run here.
Command: scarce-jax prepare coco/with_voc --source DIR; scarce-jax train configs/transfer_voc_split4.py
"""

import dataclasses
import pathlib
import runpy

from scarce_jax.data.budget import Budget

_base = runpy.run_path(str(pathlib.Path(__file__).with_name("transfer_voc_split1.py")))
_config, BATCH = _base["config"], _base["BATCH"]

STRONG = 16_241
IMAGES = STRONG + _base["IMAGES"]

config = dataclasses.replace(
    _config,
    dataset="coco/with_voc",
    budget=Budget(strong_categories=("split-set-4",)),
    cam=dataclasses.replace(_config.cam, steps=15 * IMAGES // BATCH),
    lnet=dataclasses.replace(_config.lnet, steps=30 * STRONG // BATCH),
    pnet=dataclasses.replace(_config.pnet, steps=5 * STRONG // BATCH),
    adversarial=dataclasses.replace(_config.adversarial, steps=30 * IMAGES // BATCH),
    paper={},
)
