"""Label and prediction transfer on PASCAL VOC 2012, split-set 2: the reverse of split-set 1.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(c). `paper` has its figures, IoU
on val. All other settings are those of transfer_voc_split1.py. This config was not run.

Command: scarce-jax prepare voc --source VOC; scarce-jax train transfer_voc_split2 --compare
"""

from scarce_jax.shipped import variables

_split1 = variables("transfer_voc_split1")

config = _split1["of_split"](2)
