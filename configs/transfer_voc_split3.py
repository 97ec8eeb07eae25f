"""Label and prediction transfer on PASCAL VOC 2012, split-set 3: six strong and fourteen weak categories.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(d). `paper` has its figures, IoU
on val. All other settings are those of transfer_voc_split1.py. This config was not run.

Command: scarce-jax prepare voc --source VOC; scarce-jax train transfer_voc_split3 --compare
"""

from scarce_jax.shipped import variables

_split1 = variables("transfer_voc_split1")

config = _split1["of_split"](3)
