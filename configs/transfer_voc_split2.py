"""Label and prediction transfer on PASCAL VOC 2012, split-set 2: the reverse of split-set 1.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(c). `paper` has its figures, IoU
on val. All other settings are those of transfer_voc_split1.py. This config was not run.

Command: scarce-jax prepare voc --source VOC; scarce-jax train configs/transfer_voc_split2.py --compare
"""

import pathlib
import runpy

_split1 = runpy.run_path(str(pathlib.Path(__file__).with_name("transfer_voc_split1.py")))

config = _split1["of_split"](2)
