"""Strong and weak categories, after Xiao et al., "Transferable Semi-supervised Semantic Segmentation".

A strong category has pixel labels, a weak one image-level labels alone. An image is strong only if all its labels are:
with sets 2 and 3 this gives about the paper's "3,000 images" for L-Net and "7,000" weakly labelled ones.
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
"""Name -> the strong categories; of sets 1 to 3 the other classes of `voc` are weak, of set 4 (dataset
`coco/with_voc`) all 20 of VOC.

The paper (section "Experiments", "Datasets") says how many there are (10, 10 and 6), that set 2 is set 1 reversed, and
which 60 set 4 has. It marks the strong ones by grey cells of its table 2, and the figures there tell them too: of each
class, the better of the baselines WSSL and AE is at most 4.3 points below the fully supervised DeepLab (strong) or at
least 7.6 (weak), in all three sets. In set 1, boat has 59.9 against 58.6 and cow 61.6 against 62.7, but aeroplane 50.5
against 73.2 and sofa 26.9 against 42.0.

By the labels of train_aug's masks the strong images of sets 1, 2 and 3 are 5,078, 3,359 and 3,484 of 10,582.
"""


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Class names, in which the name of a split-set stands for its strong categories; each once, in order."""
    return tuple(dict.fromkeys(k for name in names for k in SPLIT_SETS.get(name, (name,))))


def is_strong(tags: np.ndarray, strong: np.ndarray) -> np.ndarray:
    """Which images are strong: bool [...].

    An image without any label is not: nothing says that it shows no weak category.

    Args:
      tags: bool or uint8 [..., K], multi-hot; the background's column is 0.
      strong: bool [K], the strong classes.
    """
    tags = np.asarray(tags).astype(bool)
    return tags.any(-1) & ~(tags & ~np.asarray(strong)).any(-1)
