"""Strong and weak categories, after Xiao et al., "Transferable Semi-supervised Semantic Segmentation".

Strong categories have fine masks, weak categories only tags. An image is strong if all its labels are strong, which
for sets 2 and 3 agrees with the paper's "3,000 images" for L-Net and "7,000" weakly labelled ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from scarce_jax.data.datasets import COCO, VOC

_SET_1 = ("bicycle", "boat", "bus", "car", "cat", "chair", "cow", "diningtable", "person", "tvmonitor")

SPLIT_SETS: Mapping[str, tuple[str, ...]] = {
    "split-set-1": _SET_1,
    "split-set-2": tuple(name for name in VOC.classes[1:] if name not in _SET_1),
    "split-set-3": ("chair", "cow", "dog", "motorbike", "person", "train"),
    "split-set-4": COCO.classes[1:],
}
"""Name of a split-set -> its strong categories.

The weak categories of sets 1 to 3 are the other classes of `voc`; those of set 4 (dataset `coco/with_voc`) are all 20
classes of VOC.

The paper (section "Experiments", "Datasets") gives the number of strong categories (10, 10 and 6), that set 2 is set 1
reversed, and the 60 categories of set 4. Table 2 marks strong categories by grey cells. Its figures agree: in all three
sets, the better of the baselines WSSL and AE is at most 4.3 points below the fully supervised DeepLab for strong
classes, and at least 7.6 points below for weak ones. In set 1, for example, boat has 59.9 against 58.6 and cow 61.6
against 62.7, but aeroplane 50.5 against 73.2 and sofa 26.9 against 42.0.

By the masks of train_aug, the strong images of sets 1, 2 and 3 are 5,078, 3,359 and 3,484 of 10,582.
"""


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Replaces names of split-sets by their strong categories; returns each class name once, in order."""
    return tuple(dict.fromkeys(k for name in names for k in SPLIT_SETS.get(name, (name,))))


def is_strong(tags: np.ndarray, strong: np.ndarray) -> np.ndarray:
    """Returns which images are strong: bool [...]. Images without labels are not.

    Args:
      tags: bool or uint8 [..., K], multi-hot; the background's column is 0.
      strong: bool [K], which classes are strong.
    """
    tags = np.asarray(tags).astype(bool)
    return tags.any(-1) & ~(tags & ~np.asarray(strong)).any(-1)
