"""Weights and images that both sides of the comparison compute, so that neither is stored."""

import zlib

import numpy as np

WIDTH = {"basic": 16, "bottleneck": 8, "pspnet": 8}
"""Case -> base width: ResNet-18 and ResNet-50 as torchvision has them, semseg's PSPNet-50 with the deep stem."""

CLASSES = 5
SIZE = (2, 51, 66, 3)


def uniform(name, shape, low, high):
    """float32 in [low, high) from the raw stream of PCG64, which NumPy never changes."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape, dtype=np.int64)))
    values = low + (high - low) * (np.atleast_1d(raw) >> np.uint64(11)) * 2.0**-53
    return values.reshape(shape).astype(np.float32)


def weight(key, shape):
    """The value of an array of PyTorch's layout, such that activations stay near 1."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if len(shape) == 4:
        limit = (3 / np.prod(shape[1:])) ** 0.5
        return uniform(key, shape, -limit, limit)
    if key.endswith("running_var"):
        return uniform(key, shape, 0.5, 2)
    if key.endswith("weight"):
        # The last normalisation of a block adds to the shortcut.
        return (
            uniform(key, shape, 0.1, 0.4)
            if key.endswith(("bn3.weight", ".bn2.weight"))
            else uniform(key, shape, 0.5, 1)
        )
    return uniform(key, shape, -0.3, 0.3)


def image():
    """float32 [B, H, W, 3], normalised."""
    return uniform("image", SIZE, -2, 2)


def sample(array):
    """What is stored of a result [B, H, W, C]: all of a small map, its edges too, in a few channels."""
    step = max(1, array.shape[1] // 12)
    return array[:, ::step, ::step, :: max(1, array.shape[3] // 12)]
