"""Label and prediction transfer to PASCAL VOC 2012 from 60 other categories of COCO: split-set 4.

Paper: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", table 2(e). `paper` has its figures, IoU on
val. Its mIoU is over VOC's 21 classes: here that is `miou_weak_and_background`, the mean over the background and the
weak categories, while `miou` is over all 81 classes. The net predicts one of the 81 at every pixel; whether the paper's
could predict a category of COCO on VOC's images it does not say. COCO's images have up to 640 x 640 pixels, so the
padded size is 641 x 641. All other settings are those of transfer_voc_split1.py. This config was not run.

Command: scarce-jax prepare coco/with_voc --source DIR; scarce-jax train transfer_voc_split4
"""

from scarce_jax.shipped import variables

_split1 = variables("transfer_voc_split1")

config = _split1["of_split"](4, dataset="coco/with_voc")
