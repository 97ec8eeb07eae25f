"""Layout of VGG-16 in PyTorch's files: torchvision's `vgg16` and `vgg16_bn`, and timm's files of the same nets.

In both the convolutions are `features.N`. The first two fully connected layers are `classifier.0` and `classifier.3` in
torchvision's files, `pre_logits.fc1` and `pre_logits.fc2` in timm's. The third one, for ImageNet's 1000 classes, is not
used here. Nets that are built on torchvision's may have parts of `features` under other names, such as the slices of
the text detector CRAFT.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection, Mapping

import numpy as np

from scarce_jax.errors import InputError
from scarce_jax.models.vgg import CONVOLUTIONS
from scarce_jax.models.weights.files import WeightsFile
from scarce_jax.models.weights.layout import LEAVES, Arranged, Layout, Shapes, from_torch, in_trunk

FC = {"fc6": ("classifier.0", "pre_logits.fc1"), "fc7": ("classifier.3", "pre_logits.fc2")}
"""Fully connected layer -> its names in files."""

SIDES = {"fc6": 7, "fc7": 1}
"""Fully connected layer -> side of its input map."""

_ROW_STEPS = {(1, 1): 1, (7, 7): 1, (7, 3): 3}
"""Sides of the kernel (in the file, in the net) -> step between the rows and columns that are taken."""


_KEY = r"(?:features|basenet\.slice[1-4])\.(\d+)\.(\w+)"
"""Keys of the convolutions and batch normalisations. CRAFT's slices keep torchvision's numbers."""


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


def _arrange(path: pathlib.Path, file: WeightsFile, net: Shapes) -> Arranged:
    """See `Layout.arrange`.

    A net whose fc6 and fc7 are 7x7 and 1x1 convolutions takes these layers as they are. A LargeFOV, whose fc6 is 3x3,
    takes a part, as its authors do (Chen et al., 2015): the first, middle and last rows and columns of the 7x7. At
    stride 32 these are 96 pixels apart, as are those of a 3x3 dilated by 12 at stride 8. A net with 1/n of the file's
    channels takes every n-th.

    Raises:
      InputError: a key under `features` does not belong to a VGG-16.
    """
    keys = {key: match.groups() for key in file.tensors if (match := re.fullmatch(_KEY, key))}
    names = layers(any(leaf == "running_mean" for _, leaf in keys.values()))
    arrays = {}
    for key, (index, leaf) in keys.items():
        if (name := names.get(int(index))) is None or leaf not in LEAVES:
            raise InputError(
                f"{path}: {key} is not part of a VGG-16 in torchvision's layout; use a file of `vgg16` or `vgg16_bn`"
            )
        place, array = from_torch(in_trunk(name), leaf, file.tensors[key])
        arrays[place] = key, array
    for layer in FC:
        fitted = _fit(layer, file.tensors, net)
        if not fitted:
            break  # fc7 of the file was trained on the output of its fc6.
        arrays |= fitted
    used = {key for key, _ in arrays.values()}
    return arrays, [key for key in file.tensors if key not in used]


def _fit(layer: str, tensors: Mapping[str, np.ndarray], net: Shapes) -> dict[str, tuple[str, np.ndarray]]:
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


def _recognises(keys: Collection[str]) -> bool:
    return any(re.fullmatch(_KEY, key) for key in keys)


TORCHVISION = Layout("torchvision's VGG-16", "vgg16", None, "imagenet", _recognises, _arrange)
