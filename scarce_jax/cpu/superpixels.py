"""SLIC superpixels of an image, the graph of their neighbours, and their mean features."""

from __future__ import annotations

import cv2
import numpy as np

_CIELAB_RANGE = np.float32([100, 255, 255])
"""Ranges of L, a and b in 8-bit CIELAB."""


def cielab(image: np.ndarray) -> np.ndarray:
    """Converts an sRGB image to CIELAB with white point D65.

    Args:
      image: uint8 [H, W, 3] RGB.

    Returns:
      float32 [H, W, 3]: L in 0..100, a and b within -128..127.
    """
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def normalised(lab: np.ndarray) -> np.ndarray:
    """CIELAB [..., 3] divided by the ranges of the channels, so that each spans at most 1."""
    return lab / _CIELAB_RANGE


def superpixels(lab: np.ndarray, *, segments: int, compactness: float, iterations: int) -> np.ndarray:
    """SLIC superpixels: connected regions of similar colour and size. Equal inputs give equal results.

    The distance is that of Achanta et al., "SLIC superpixels compared to state-of-the-art superpixel methods",
    equation 3: the squared CIELAB distance, plus compactness^2 times the squared distance in grid steps.

    Args:
      lab: float32 [H, W, 3], CIELAB.
      segments: number of superpixels to start from. Small ones are merged into neighbours, so that fewer remain.
      compactness: CIELAB distance that counts as much as one grid step. Larger values give squarer superpixels.
      iterations: number of k-means iterations.

    Returns:
      int64 [H, W], ids 0..N-1, each of which occurs.
    """
    # Imported here, because the import is slow and most processes never call this function.
    from skimage.segmentation import slic

    # slic scales its input to 0..1. Compactness is scaled too, so that it does not depend on the contrast.
    extent = float(lab.max() - lab.min()) or 1.0
    return slic(
        lab,
        n_segments=segments,
        compactness=compactness / extent,
        max_num_iter=iterations,
        convert2lab=False,
        start_label=0,
        channel_axis=-1,
    )


def region_means(values: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Means of values over regions, float64 [N, D].

    Args:
      values: real [H, W, D].
      regions: int [H, W], ids 0..N-1, each of which occurs.
    """
    flat = regions.ravel()
    sizes = np.bincount(flat)
    sums = [np.bincount(flat, weights=channel.ravel()) for channel in np.moveaxis(values, -1, 0)]
    return np.stack(sums, -1) / sizes[:, None] if sums else np.zeros((sizes.size, 0))


def adjacency(regions: np.ndarray) -> np.ndarray:
    """Pairs of regions that share a pixel side, int64 [E, 2]: sorted, each pair once with its smaller id first."""
    sides = ((regions[:, :-1], regions[:, 1:]), (regions[:-1], regions[1:]))
    first, second = (np.concatenate([side[k][side[0] != side[1]] for side in sides]).astype(np.int64) for k in (0, 1))
    count = int(regions.max()) + 1
    codes = np.unique(np.minimum(first, second) * count + np.maximum(first, second))
    return np.stack(np.divmod(codes, count), -1)


def at_border(regions: np.ndarray) -> np.ndarray:
    """Whether each region touches the border of the image, bool [N]."""
    touching = np.zeros(int(regions.max()) + 1, bool)
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        touching[edge] = True
    return touching
