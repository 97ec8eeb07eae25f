"""Two small images and a P-Net for them."""

import numpy as np

from scarce_jax.methods.transfer.pnet_masks import PNetJudge
from scarce_jax.models.pnet import PNet

CLASSES = 4
JUDGE = PNetJudge(module=PNet(width=1), size=(16, 16), number=3, background=0)


def made_pictures():
    """Two images, their labels and the logits of a segmenter: one image of classes 1 and 3 and void, one of class 2."""
    rng = np.random.default_rng(0)
    labels = np.zeros((2, 16, 16), np.uint8)
    labels[0, :8], labels[0, 8:10], labels[0, 10:12] = 3, 1, 255
    labels[1, :4] = 2
    images = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    return images, labels, rng.normal(size=(2, 16, 16, CLASSES)).astype(np.float32)
