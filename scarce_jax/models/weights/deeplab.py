"""Layout of DeepLab-v2 in PyTorch: the files from which Hung et al. start, and those that they publish.

The ResNet has torchvision's names, and the classifiers of the ASPP are `layer5.conv2d_list.N`. In some files all names
start with `Scale.`. Strides are those of Caffe, and so are the images: BGR less a mean, which differs from that of
`models.normalisation` by at most 1.01 of 255.

A net of other classes takes all but the classifiers, as the code of Hung et al. does.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection

from scarce_jax.models.deeplab import RATES
from scarce_jax.models.weights.files import WeightsFile
from scarce_jax.models.weights.layout import Arranged, Layout, Shapes
from scarce_jax.models.weights.torch_resnet import arrange_layers, resnet_layer

_PREFIX = "Scale."
_CLASSIFIER = r"layer5\.conv2d_list\.([0-3])"


def _layer(owner: str) -> str | None:
    owner = owner.removeprefix(_PREFIX)
    if match := re.fullmatch(_CLASSIFIER, owner):
        return f"aspp_rate{RATES[int(match[1])]}"
    return resnet_layer(owner)


def _arrange(path: pathlib.Path, file: WeightsFile, net: Shapes) -> Arranged:
    return arrange_layers(path, file, _layer)


def _recognises(keys: Collection[str]) -> bool:
    return any(re.match(_CLASSIFIER, key.removeprefix(_PREFIX)) for key in keys)


DEEPLAB = Layout("DeepLab-v2 in PyTorch", "resnet", "caffe", "caffe", _recognises, _arrange)
