"""What a layout is: the names that the arrays of a kind of file have."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping

import numpy as np

from scarce_jax.models.weights.checks import TRUNK
from scarce_jax.models.weights.files import WeightsFile

Shapes = Mapping[str, tuple[int, ...]]

Arranged = tuple[dict[str, tuple[str, np.ndarray]], list[str]]
"""Parameter path ("params/backbone/conv1/kernel") -> (key of the file, array in Flax's layout); and the keys of the
file that have no parameter path."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names that the arrays of a file may have, and what files with such names have in common.

    Attributes:
      name: in words, for messages and the facts of a run.
      kind: of the backbone that takes the file.
      geometry: of the ResNet that the weights were trained in, as `ResNetConfig.geometry`; None for other backbones.
      normalisation: of the images that the weights were trained on (see `models.normalisation`).
      recognises: `(keys) -> bool`, whether a file of these keys has this layout.
      arrange: `(path, file, net) -> Arranged`. `net` has the shapes of the net by parameter path; {} if there is none.
        Raises InputError for an array that does not belong to such a backbone.
    """

    name: str
    kind: str
    geometry: str | None
    normalisation: str
    recognises: Callable[[Collection[str]], bool]
    arrange: Callable[[pathlib.Path, WeightsFile, Shapes], Arranged]


LEAVES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
"""PyTorch's name of an array of a layer -> collection and name in Flax. The `weight` of a convolution is a kernel."""


def from_torch(owner: str, leaf: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """Parameter path and array in Flax's layout of an array of a layer.

    Args:
      owner: path of the layer in the net; the names of batch normalisations start with "bn" or "downsample_bn".
      leaf: one of LEAVES.
      value: the array as PyTorch has it; convolutions are [out, in, height, width].
    """
    collection, name = LEAVES[leaf]
    if name == "scale" and not owner.rpartition("/")[2].startswith(("bn", "downsample_bn")):
        name = "kernel"
    return f"{collection}/{owner}/{name}", value.transpose(2, 3, 1, 0) if value.ndim == 4 else value


def in_trunk(name: str) -> str:
    """Path of a layer of the backbone."""
    return f"{TRUNK}/{name}"
