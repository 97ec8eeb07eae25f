"""Label and prediction transfer to PASCAL VOC 2012 from 60 other categories of COCO: split-set 4.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(e): mIoU 0.562 (P-Net) and 0.553
(L-Net) over VOC's 21 classes. Here that is the mean over the background and the weak categories, while `miou` is over
all 81 classes. COCO's images have up to 640 x 640 pixels, so the padded size is 641 x 641. All other settings are those
of transfer_voc_split1.py. This config was not run.

Command: scarce-jax prepare coco/with_voc --source DIR; scarce-jax train configs/transfer_voc_split4.py
"""

import dataclasses
import pathlib
import runpy

_split1 = runpy.run_path(str(pathlib.Path(__file__).with_name("transfer_voc_split1.py")))
_config, BATCH = _split1["config"], _split1["BATCH"]

SIZE = (641, 641)
STRONG = 16_241
IMAGES = STRONG + _split1["IMAGES"]

config = _split1["of_split"](
    4,
    strong=STRONG,
    dataset="coco/with_voc",
    size=SIZE,
    cam=dataclasses.replace(_config.cam, size=SIZE, steps=15 * IMAGES // BATCH),
    segmenter=dataclasses.replace(_config.segmenter, size=SIZE),
    adversarial=dataclasses.replace(_config.adversarial, steps=30 * IMAGES // BATCH),
    paper={},
)
