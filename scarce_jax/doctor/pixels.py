"""Measures of single arrays: a hash of an image, whether a mask is black and white, and whether an id is a line."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np


def digest(image: np.ndarray) -> bytes:
    """A hash of the pixels and the size of an image uint8 [H, W, 3]."""
    state = hashlib.blake2b(np.ascontiguousarray(image), digest_size=16)
    state.update(str(image.shape).encode())
    return state.digest()


def black_and_white(grey: np.ndarray) -> bool:
    """Whether a picture uint8 [H, W] shows black and white alone, up to blended borders and JPEG's changes.

    All but 1 in 1,000 pixels must be within 64 of black or white, or within 2 pixels of both.
    """
    black, white = grey <= 64, grey >= 255 - 64
    square = np.ones((5, 5), np.uint8)
    border = cv2.dilate(black.astype(np.uint8), square) & cv2.dilate(white.astype(np.uint8), square)
    return bool(black.any() and white.any()) and np.mean(black | white | (border > 0)) >= 0.999


def outline(mask: np.ndarray, value: int) -> bool:
    """Whether an id runs along borders, as void does in PASCAL VOC: thin everywhere, and between all other regions.

    The pixels of the id are filled with the nearest other id; 80% of the borders between the regions that result must
    lie where the id was. In PASCAL VOC void scores 0.97 (thin) and 0.99 (between); no class of VOC, CamVid or
    Cityscapes scores more than 0.55 in the second.

    Args:
      mask: uint8 [H, W] with at least one other id.
    """
    here = mask == value
    # Beyond the frame counts as the id itself: a band along the frame is not thin by itself.
    padded = cv2.copyMakeBorder(here.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    if np.mean(distance[here] <= max(3.0, 0.01 * np.hypot(*mask.shape))) < 0.8:
        return False
    _, seeds = cv2.distanceTransformWithLabels(here.astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    ids = np.zeros(seeds.max() + 1, np.uint8)
    ids[seeds[~here]] = mask[~here]
    filled = ids[seeds]
    borders = inside = 0
    for near, far in ((np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:])):
        border = filled[near] != filled[far]
        borders += np.count_nonzero(border)
        inside += np.count_nonzero(border & (here[near] | here[far]))
    return borders > 0 and inside / borders >= 0.8
