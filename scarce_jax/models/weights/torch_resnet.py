"""Layouts of ResNets in PyTorch's files: torchvision's, which timm shares, and that of a PSPNet of hszhao/semseg.

`layer3.0.conv2.weight` is `layer3_block0/conv2/kernel`, and semseg's `layer0.3.weight` is the deep stem's
`conv2/kernel`.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Collection

from scarce_jax.errors import InputError
from scarce_jax.models.weights.files import WeightsFile
from scarce_jax.models.weights.layout import LEAVES, Arranged, Layout, Shapes, from_torch, in_trunk

_BINS = (1, 2, 3, 6)
_HEADS = {"cls": ("final_block", "classifier"), "aux": ("aux_block", "aux_classifier")}

_VARIANTS = {
    r"conv1\.\d+\.": "a deep stem of three 3x3 convolutions, as timm's resnet50d",
    r"layer\d\.\d+\.downsample\.2\.": "average pooling in its shortcuts, as timm's resnet50d",
}
"""Keys of ResNets that compute something else than torchvision's, and what."""


def resnet_layer(owner: str) -> str | None:
    """Path of the layer that torchvision calls `owner`, such as "layer1.0.conv1"; None if it is no part of a ResNet."""
    match = re.fullmatch(r"(?:layer([1-4])\.(\d+)\.)?((?:conv|bn)\d|downsample\.[01])", owner)
    if match is None:
        return None
    layer, block, name = match.groups()
    name = {"downsample.0": "downsample_conv", "downsample.1": "downsample_bn"}.get(name, name)
    return in_trunk(name if layer is None else f"layer{layer}_block{block}/{name}")


def _pspnet_layer(owner: str) -> str | None:
    """As `resnet_layer`, of a PSPNet of semseg."""
    if match := re.fullmatch(r"layer0\.([013467])", owner):
        index, kind = divmod(int(match[1]), 3)
        return in_trunk(f"{('conv', 'bn')[kind]}{index + 1}")
    if match := re.fullmatch(r"ppm\.features\.([0-3])\.([12])", owner):
        return f"ppm/bin{_BINS[int(match[1])]}/{'conv' if match[2] == '1' else 'bn'}"
    if match := re.fullmatch(r"(cls|aux)\.([014])", owner):
        block, classifier = _HEADS[match[1]]
        return {"0": f"{block}/conv", "1": f"{block}/bn", "4": classifier}[match[2]]
    return resnet_layer(owner)


def arrange_layers(path: pathlib.Path, file: WeightsFile, layer_of: Callable[[str], str | None]) -> Arranged:
    """Arranges the arrays of a file of a ResNet, and perhaps of a head on it.

    Args:
      layer_of: PyTorch's name of a layer -> its path, or None.

    Raises:
      InputError: an array of the ResNet has no path, so that the ResNet is of another kind.
    """
    arrays, unused = {}, []
    for key, value in file.tensors.items():
        owner, _, leaf = key.rpartition(".")
        layer = layer_of(owner) if leaf in LEAVES else None
        if layer is not None:
            name, array = from_torch(layer, leaf, value)
            arrays[name] = key, array
        elif re.match(r"(conv|bn)\d|layer[0-4]", key):
            variant = next(
                (f" (a ResNet with {what})" for start, what in _VARIANTS.items() if re.match(start, key)), ""
            )
            raise InputError(
                f"{path}: {key} is not part of a ResNet in torchvision's layout{variant}; use a file of torchvision's "
                f"ResNet, such as timm/resnet50.tv_in1k"
            )
        else:
            unused.append(key)
    return arrays, unused


def _arrange(path: pathlib.Path, file: WeightsFile, net: Shapes) -> Arranged:
    return arrange_layers(path, file, resnet_layer)


def _arrange_pspnet(path: pathlib.Path, file: WeightsFile, net: Shapes) -> Arranged:
    return arrange_layers(path, file, _pspnet_layer)


def _is_resnet(keys: Collection[str]) -> bool:
    return any(re.match(r"layer[1-4]\.\d+\.", key) for key in keys)


def _is_pspnet(keys: Collection[str]) -> bool:
    return _is_resnet(keys) and any(key.startswith("layer0.") for key in keys)


SEMSEG = Layout("semseg's PSPNet", "resnet", "torchvision", "imagenet", _is_pspnet, _arrange_pspnet)
TORCHVISION = Layout("torchvision's ResNet", "resnet", "torchvision", "imagenet", _is_resnet, _arrange)
