"""Label and prediction transfer on PASCAL VOC 2012, split-set 2: that of split-set 1 reversed.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(c); figures in `paper` (mIoU on val).
All else as in transfer_voc_split1.py. Nothing of it was run here.
Command: scarce-jax prepare voc --source VOC; scarce-jax train configs/transfer_voc_split2.py --compare
"""

import dataclasses
import pathlib
import runpy

from scarce_jax.data.budget import Budget

_base = runpy.run_path(str(pathlib.Path(__file__).with_name("transfer_voc_split1.py")))
_config, BATCH = _base["config"], _base["BATCH"]

STRONG = 3_359

config = dataclasses.replace(
    _config,
    budget=Budget(strong_categories=("split-set-2",)),
    lnet=dataclasses.replace(_config.lnet, steps=30 * STRONG // BATCH),
    pnet=dataclasses.replace(_config.pnet, steps=5 * STRONG // BATCH),
    paper={"pnet": 0.585, "lnet": 0.572, "all_labels": 0.629},
)
