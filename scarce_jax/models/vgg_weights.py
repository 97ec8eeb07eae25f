"""Layout of VGG-16 in PyTorch's files: torchvision's `vgg16` and `vgg16_bn`, and timm's files of the same nets.

In both the convolutions are `features.N`. The first two fully connected layers are `classifier.0` and `classifier.3` in
torchvision's files, `pre_logits.fc1` and `pre_logits.fc2` in timm's. The third one, for ImageNet's 1000 classes, is not
used here.
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
"""Fully connected layer -> side of its input map."""

_ROW_STEPS = {(1, 1): 1, (7, 7): 1, (7, 3): 3}
"""Sides of the kernel (in the file, in the net) -> step between the rows and columns that are taken."""


def layers(batch_norm: bool) -> dict[int, str]:
    """N of `features.N` -> name of the layer in a VGG16Trunk. Other N are ReLUs and poolings."""
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

    A net whose fc6 and fc7 are 7x7 and 1x1 convolutions takes these layers as they are. A LargeFOV, whose fc6 is 3x3,
    takes a part, as its authors do (Chen et al., 2015): the first, middle and last rows and columns of the 7x7. At
    stride 32 these are 96 pixels apart, as are those of a 3x3 dilated by 12 at stride 8. A net with 1/n of the file's
    channels takes every n-th.

    Args:
      path: path of the file, for messages.
      tensors: PyTorch's key -> array.
      trunk: name of the net's VGG-16.
      net: "params/backbone/conv1_1/kernel" -> shape, of all arrays of the net.

    Returns:
      "params/backbone/conv1_1/kernel" -> (key, array in Flax's layout), and the keys that the net does not use.

    Raises:
      InputError: a key under `features` does not belong to a VGG-16.
    """
    names = layers(any(re.fullmatch(r"features\.\d+\.running_mean", key) for key in tensors))
    arrays = {}
    for key, value in tensors.items():
        owner, _, leaf = key.rpartition(".")
        index = re.fullmatch(r"features\.(\d+)", owner)
        if index is None:
            continue
        if (name := names.get(int(index[1]))) is None:
            raise InputError(
                f"{path}: {key} is not part of a VGG-16 in torchvision's layout; use a file of `vgg16` or `vgg16_bn`"
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
            break  # fc7 of the file was trained on the output of its fc6.
        arrays |= fitted
    used = {key for key, _ in arrays.values()}
    return arrays, [key for key in tensors if key not in used]


def describe(shapes: Iterable[str]) -> str:
    """The kind of VGG-16 that has arrays of these names, in words."""
    normalised = any(re.search(r"/bn\d_\d/", name) for name in shapes)
    return f"a VGG-16 {'with' if normalised else 'without'} batch normalisation"


def _fit(
    layer: str, tensors: Mapping[str, np.ndarray], net: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[str, np.ndarray]]:
    """Kernel and bias of a fully connected layer for the net's convolution of that name; empty if they do not fit."""
    shape = net.get(f"params/{layer}/kernel", ())
    owner = next((name for name in FC[layer] if f"{name}.weight" in tensors), None)
    if len(shape) != 4 or owner is None:
        return {}
    weight, side = tensors[f"{owner}.weight"], SIDES[layer]
    # The inputs of the layer are a flattened map [C, side, side].
    kernel = weight.reshape(len(weight), -1, side, side).transpose(2, 3, 1, 0)
    # Steps along rows, columns, inputs and outputs. All inputs of fc6 must be in the net.
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
