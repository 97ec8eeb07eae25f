"""Label and prediction transfer to PASCAL VOC 2012 from 60 other categories of COCO: split-set 4.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(e): mIoU 0.562 (P-Net) and 0.553
(L-Net) over VOC's 21 classes. Here that is the mean over the background and the weak categories, while `miou` is over
all 81 classes. All other settings are those of transfer_voc_split1.py. This config was not run.

Command: scarce-jax prepare coco/with_voc --source DIR; scarce-jax train configs/transfer_voc_split4.py
"""

import dataclasses
import pathlib
import runpy

_split1 = runpy.run_path(str(pathlib.Path(__file__).with_name("transfer_voc_split1.py")))
_config, BATCH = _split1["config"], _split1["BATCH"]

STRONG = 16_241
IMAGES = STRONG + _split1["IMAGES"]

config = _split1["of_split"](
    4,
    strong=STRONG,
    dataset="coco/with_voc",
    cam=dataclasses.replace(_config.cam, steps=15 * IMAGES // BATCH, optim=_split1["of_tags"](80)),
    adversarial=dataclasses.replace(_config.adversarial, steps=30 * IMAGES // BATCH),
    paper={},
)
