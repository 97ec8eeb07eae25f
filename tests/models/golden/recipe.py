"""Weights and images that both sides of the comparison compute, so that neither is stored."""

import re
import zlib

import numpy as np

WIDTH = {"basic": 16, "bottleneck": 8, "pspnet": 8, "vgg16": 8, "vgg16_bn": 8, "largefov": 4, "cam": 4, "pnet": 4}
WIDTH |= {"irnet": 16, "deeplabv3plus": 8}
"""Case -> base width: ResNet-18, ResNet-50, VGG-16 as torchvision has them, semseg's PSPNet-50 with the deep stem; and
what is built on VGG-16."""

CLASSES = 5
SIZE = (2, 51, 66, 3)
EIGHTHS = (2, 65, 97, 3)
"""Sides of the form 8 * n + 1, at which Caffe's rounding up of pools changes nothing."""


def uniform(name, shape, low, high):
    """float32 in [low, high) from the raw stream of PCG64, which NumPy never changes."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape, dtype=np.int64)))
    values = low + (high - low) * (np.atleast_1d(raw) >> np.uint64(11)) * 2.0**-53
    return values.reshape(shape).astype(np.float32)


def weight(key, shape, gain=1):
    """The value of an array of PyTorch's layout, such that activations stay near 1 (see `gain_of`)."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if len(shape) in (2, 4):
        limit = (3 * gain / np.prod(shape[1:])) ** 0.5
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


def torch_key(path):
    """PyTorch's key of a parameter path "backbone/layer3_block0/downsample_conv/kernel", by torchvision's names."""
    path = re.sub(r"layer(\d)_block(\d+)", r"layer\1.\2", path)
    path = path.replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1")
    owner, _, leaf = path.replace("/", ".").rpartition(".")
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return f"{owner}.{leaves.get(leaf, leaf)}"


def variables(shapes):
    """{"params/PATH": values} of a net whose PyTorch twin has the keys of `torch_key`, from {"params/PATH": shape}."""
    values = {}
    for path, shape in shapes.items():
        torch_shape = (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape
        value = weight(torch_key(path.partition("/")[2]), torch_shape, 2)
        values[path] = value.transpose(2, 3, 1, 0) if len(shape) == 4 else value
    return values


def gain_of(case):
    """What `weight` takes for a case: only nets with a ReLU after every convolution need 2."""
    return 1 if case == "vgg16_bn" else 2


def image(size=SIZE):
    """float32 [B, H, W, 3], normalised."""
    return uniform("image", size, -2, 2)


def edge():
    """Boundary probabilities float32 [12, 15], mostly small."""
    return uniform("edge", (12, 15), 0, 1) ** 3


def sample(array):
    """What is stored of a result [B, H, W, C]: all of a small map, its edges too, in a few channels."""
    step = max(1, array.shape[1] // 12)
    return array[:, ::step, ::step, :: max(1, array.shape[3] // 12)]


DINOV2 = {"width": 24, "blocks": 4, "heads": 2, "grid": 5}
DINOV2_SIZES = ((70, 70), (42, 98), (84, 126))
"""The grid of the positions, one that is smaller one way and larger the other, and a larger one."""


def dinov2_weight(key, shape):
    """The value of an array of DINOv2's: tokens, positions and LayerScale too large to be overlooked."""
    if key.endswith(("_token", "_tokens", "position_embeddings")):
        return uniform(key, shape, -1, 1)
    return uniform(key, shape, 0.3, 1) if key.endswith("lambda1") else weight(key, shape)
