"""The layout of VGG-16 in PyTorch's files: torchvision's `vgg16` and `vgg16_bn`, and timm's files of the same nets.

Both have the convolutions under `features.N`. The first two fully connected layers are `classifier.0` and `.3` in
torchvision's files, `pre_logits.fc1` and `.fc2` in timm's. No net here uses the third, ImageNet's 1000 classes.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Mapping

import numpy as np

from scarce_jax.errors import InputError
from scarce_jax.models.vgg import CONVOLUTIONS

FC = {"fc6": ("classifier.0", "pre_logits.fc1"), "fc7": ("classifier.3", "pre_logits.fc2")}
"""Fully connected layer -> its names in files."""

SIDES = {"fc6": 7, "fc7": 1}
"""Fully connected layer -> side of the map that it takes."""

_ROW_STEPS = {(1, 1): 1, (7, 7): 1, (7, 3): 3}


def layers(batch_norm: bool) -> dict[int, str]:
    """N of `features.N` -> name of the layer in a VGG16Trunk; the other N are ReLUs and pools."""
    named, index = {}, 0
    for group, count in enumerate(CONVOLUTIONS, start=1):
        for number in range(1, count + 1):
            for kind in ("conv", "bn") if batch_norm else ("conv",):
                named[index] = f"{kind}{group}_{number}"
                index += 1
            index += 1
        index += 1
    return named


def arrange(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], trunk: str, net: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[str, np.ndarray]], list[str]]:
    """Maps the arrays of a file to parameter paths of a net.

    A net that has fc6 and fc7 as convolutions takes them whole, as 7x7 and 1x1. A LargeFOV takes a part, as its authors
    do (Chen et al., 2015): the first, middle and last rows and columns of the 7x7, which at stride 32 are 96 pixels
    apart, as those of a 3x3 dilated by 12 are at stride 8. A net with 1/n of the file's channels takes every n-th.

    Args:
      path: the file, for messages.
      tensors: PyTorch's key -> array.
      trunk: name of the net's VGG-16.
      net: "params/backbone/conv1_1/kernel" -> shape, of every array of the net.

    Returns:
      "params/backbone/conv1_1/kernel" -> (key, array in Flax's layout), and the keys that the net does not use.

    Raises:
      InputError: a key under `features` is of another network.
    """
    names = layers(any(re.fullmatch(r"features\.\d+\.running_mean", key) for key in tensors))
    arrays = {}
    for key, value in tensors.items():
        owner, _, leaf = key.rpartition(".")
        index = re.fullmatch(r"features\.(\d+)", owner)
        if index is None or leaf == "num_batches_tracked":
            continue
        if (name := names.get(int(index[1]))) is None:
            raise InputError(
                f"{path}: {key} is of no VGG-16 in torchvision's layout; expected a file of `vgg16` or `vgg16_bn`"
            )
        if leaf.startswith("running_"):
            arrays[f"batch_stats/{trunk}/{name}/{leaf.removeprefix('running_')}"] = key, value
        else:
            ending = leaf if leaf == "bias" else "scale" if name.startswith("bn") else "kernel"
            # PyTorch's convolutions are [out, in, height, width].
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
            arrays[f"params/{trunk}/{name}/{ending}"] = key, value
    for layer in FC:
        fitted = _fit(layer, tensors, net)
        if not fitted:
            break  # Whatever takes fc6's place, fc7 was not trained on it.
        arrays |= fitted
    used = {key for key, _ in arrays.values()}
    return arrays, [key for key in tensors if key not in used and not key.endswith("num_batches_tracked")]


def describe(shapes: Iterable[str]) -> str:
    """Which VGG-16 has arrays of these names."""
    normalised = any(re.search(r"/bn\d_\d/", name) for name in shapes)
    return f"a VGG-16 {'with' if normalised else 'without'} batch normalisation"


def _fit(
    layer: str, tensors: Mapping[str, np.ndarray], net: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[str, np.ndarray]]:
    """The kernel and bias of a fully connected layer as the net's convolution of that name; empty if unfit."""
    shape = net.get(f"params/{layer}/kernel", ())
    owner = next((name for name in FC[layer] if f"{name}.weight" in tensors), None)
    if len(shape) != 4 or owner is None:
        return {}
    weight, side = tensors[f"{owner}.weight"], SIDES[layer]
    # Its inputs are a map [C, side, side], flattened.
    kernel = weight.reshape(len(weight), -1, side, side).transpose(2, 3, 1, 0)
    # Rows and columns; then the channels, of which those that fc6 reads must all be there.
    steps = [_ROW_STEPS.get(sides, 0) for sides in zip(kernel.shape[:2], shape[:2], strict=True)]
    steps += [has // needs if has % needs == 0 else 0 for has, needs in zip(kernel.shape[2:], shape[2:], strict=True)]
    if not all(steps) or (layer == "fc6" and steps[2] > 1):
        return {}
    kernel = kernel[tuple(slice(None, None, step) for step in steps)]
    bias = tensors[f"{owner}.bias"][:: steps[3]]
    return {
        f"params/{layer}/kernel": (f"{owner}.weight", kernel),
        f"params/{layer}/bias": (f"{owner}.bias", bias),
    }
