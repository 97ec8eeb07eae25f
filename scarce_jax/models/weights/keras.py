"""Layouts of Keras: ResNet-50, ResNet-101 and VGG-16 of keras.applications, also as models of TensorFlow.js.

ResNets have either the older names (`res2a_branch2a/kernel`, `bn2a_branch2a/gamma`) or the newer ones
(`conv2_block1_1_conv/kernel`, `conv2_block1_1_bn/gamma`). Both descend from He et al.'s Caffe models. Their
convolutions have biases, which go into the mean of the batch normalisation that follows. Its epsilon goes into the
variance: with older names it is 1e-3, with newer ones 1.001e-5, unless the file says otherwise.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection

import numpy as np

from scarce_jax.errors import InputError
from scarce_jax.models.batch_norm import BatchNorm
from scarce_jax.models.weights.files import WeightsFile
from scarce_jax.models.weights.layout import Arranged, Layout, Shapes, in_trunk

_OLD, _NEW = 1e-3, 1.001e-5
"""Epsilons of batch normalisation with older and newer names."""

_BATCH_NORM = {
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}


def _unit(layer: str) -> tuple[str, str, float] | None:
    """The layer of the net, the convolution whose bias it takes up, and the epsilon; None for other layers.

    "bn2a_branch2b" -> ("backbone/layer1_block0/bn2", "res2a_branch2b", 1e-3)
    """
    if layer in ("conv1", "bn_conv1"):
        return in_trunk("conv1" if layer == "conv1" else "bn1"), "conv1", _OLD
    if layer in ("conv1_conv", "conv1_bn"):
        return in_trunk("conv1" if layer == "conv1_conv" else "bn1"), "conv1_conv", _NEW
    if match := re.fullmatch(r"(res|bn)([2-5])([a-z])_branch(1|2[abc])", layer):
        kind, stage, block, branch = match.groups()
        name = f"layer{int(stage) - 1}_block{ord(block) - ord('a')}"
        number, convolution = " abc".index(branch[1:] or " "), f"res{layer.removeprefix(kind)}"
        kind, epsilon = "conv" if kind == "res" else "bn", _OLD
    elif match := re.fullmatch(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)", layer):
        stage, block, number, kind = match.groups()
        name, number = f"layer{int(stage) - 1}_block{int(block) - 1}", int(number)
        convolution, epsilon = f"{layer.rpartition('_')[0]}_conv", _NEW
    else:
        return None
    return in_trunk(f"{name}/{f'{kind}{number}' if number else f'downsample_{kind}'}"), convolution, epsilon


def _arrange_resnet(path: pathlib.Path, file: WeightsFile, net: Shapes) -> Arranged:
    arrays, unused = {}, []
    for key, value in file.tensors.items():
        layer, _, leaf = key.rpartition("/")
        if "preact" in layer:
            raise InputError(f"{path}: {key} is part of a ResNetV2, which normalises before it convolves; use a ResNet")
        unit = _unit(layer)
        if unit is None:
            unused.append(key)
            continue
        place, convolution, epsilon = unit
        normalises = "bn" in place.rpartition("/")[2]
        bias = f"{convolution}/bias"
        if leaf == "kernel" and not normalises:
            arrays[f"params/{place}/kernel"] = key, value
        elif leaf in _BATCH_NORM and normalises:
            collection, name = _BATCH_NORM[leaf]
            if leaf == "moving_mean" and bias in file.tensors and file.tensors[bias].shape == value.shape:
                key, value = f"{key} - {bias}", value.astype(np.float64) - file.tensors[bias]
            elif leaf == "moving_variance":
                value = value.astype(np.float64) + (file.epsilons.get(layer, epsilon) - BatchNorm.epsilon)
            arrays[f"{collection}/{place}/{name}"] = key, value
        elif leaf != "bias":
            raise InputError(f"{path}: {key} is not part of a ResNet of Keras; use a file of keras.applications")
    return arrays, unused


def _vgg_layer(key: str) -> tuple[str, str] | None:
    """The layer of the net and the name of its array; None for other arrays."""
    # The first files of keras.applications have W_1 and b_1 with the name of the layer before it.
    if match := re.fullmatch(r"block([1-5])_conv([1-3])/(?:block\d_conv\d_)?(kernel|W_1|bias|b_1)", key):
        group, number, leaf = match.groups()
        return in_trunk(f"conv{group}_{number}"), {"W_1": "kernel", "b_1": "bias"}.get(leaf, leaf)
    # A subclassed model of Keras 3, one block a group.
    if match := re.fullmatch(r"block([1-5])/layers/conv2d(?:_([12]))?/vars/([01])", key):
        group, number, leaf = match.groups()
        return in_trunk(f"conv{group}_{int(number or 0) + 1}"), ("kernel", "bias")[int(leaf)]
    return None


def _arrange_vgg(path: pathlib.Path, file: WeightsFile, net: Shapes) -> Arranged:
    arrays, unused = {}, []
    for key, value in file.tensors.items():
        if (place := _vgg_layer(key)) is None:
            unused.append(key)
        else:
            arrays[f"params/{place[0]}/{place[1]}"] = key, value
    return arrays, unused


def _is_resnet(keys: Collection[str]) -> bool:
    layers = {key.rpartition("/")[0] for key in keys}
    # Other nets have a layer conv1 too.
    return any(re.search("_branch2|_block", layer) and _unit(layer) for layer in layers)


def _is_vgg(keys: Collection[str]) -> bool:
    return any(_vgg_layer(key) is not None for key in keys)


RESNET = Layout("Keras' ResNet", "resnet", "caffe", "caffe", _is_resnet, _arrange_resnet)
VGG = Layout("Keras' VGG-16", "vgg16", None, "caffe", _is_vgg, _arrange_vgg)
