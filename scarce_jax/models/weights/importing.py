"""Import of weights for a net, and descriptions of files without one."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from flax import traverse_util

from scarce_jax.errors import InputError
from scarce_jax.models.normalisation import Normalisation
from scarce_jax.models.weights import files
from scarce_jax.models.weights.checks import SETTINGS, Backbone, check_backbone, check_trunk, features, trunk
from scarce_jax.models.weights.layout import Arranged, Layout, Shapes
from scarce_jax.models.weights.layouts import recognise

_VALUES = {"geometry": ("torchvision", "caffe"), "normalisation": get_args(Normalisation)}
"""What metadata may state."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """Arrays of a file that a net takes over.

    Attributes:
      values: "params/backbone/conv1/kernel" -> float32 array in Flax's layout.
      used: key of the file -> (parameter path, shape in Flax's layout). A key "A - B" is a difference of two arrays.
      unused: key of the file -> why the net has no place for it.
      facts: layout, geometry and normalisation, and what else the file states (see `files.STATED`).
    """

    values: dict[str, np.ndarray]
    used: dict[str, tuple[str, tuple[int, ...]]]
    unused: dict[str, str]
    facts: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Description:
    """What a file is. The fields are as in `Imported`, for a net that takes all of it.

    Attributes:
      kind: of the backbone that takes it.
      settings: of this backbone: depth, stem, width or batch_norm -> in words, and the value of the setting.
    """

    kind: str
    settings: dict[str, tuple[str, Any]]
    used: dict[str, tuple[str, tuple[int, ...]]]
    unused: dict[str, str]
    facts: dict[str, str]


def describe(path: pathlib.Path) -> Description:
    """Says what a file is.

    Raises:
      InputError: the file is damaged, or has no layout that is known.
    """
    layout, (arrays, unused), facts, _ = _read(path, {})
    shapes = {name: value.shape for name, (_, value) in arrays.items()}
    settings = {name: value for name, value in features(trunk(shapes)).items() if value is not None}
    used = {key: (name, value.shape) for name, (key, value) in arrays.items()}
    return Description(layout.kind, settings, used, dict.fromkeys(unused, "only in some nets, or in none"), facts)


def import_weights(path: pathlib.Path, net: Shapes, backbone: Backbone | None = None) -> Imported:
    """Reads weights and batch statistics for a net from a file.

    The file must hold the whole backbone. Other arrays, such as those of a head, and fc6 and fc7 of a VGG-16, are taken
    where their shapes fit the net.

    Args:
      path: path of the file.
      net: "params/backbone/conv1/kernel" -> shape, of all arrays of the net.
      backbone: geometry and normalisation of the net's backbone; None checks neither.

    Raises:
      InputError: the file is damaged, or its backbone differs from that of the net in kind, depth, stem, batch
        normalisation, width, keys, shapes, geometry or normalisation.
    """
    backbone = backbone or Backbone()
    layout, (arrays, unplaced), facts, stated = _read(path, net)
    theirs = trunk({name: value.shape for name, (_, value) in arrays.items()})
    check_trunk(path, layout.name, layout.kind, theirs, trunk(net), backbone.flag)
    remark = "" if stated else _declare(path, layout, facts, backbone)
    check_backbone(str(path), facts, backbone, remark)
    values, used, unused = {}, {}, dict.fromkeys(unplaced, "no place in the net")
    for name, (key, value) in arrays.items():
        if net.get(name) != value.shape:
            place = f"the net's {name} has {list(net[name])}" if name in net else "no place in the net"
            unused[key] = f"{list(value.shape)}; {place}"
            continue
        values[name] = np.asarray(value, np.float32)
        used[key] = name, value.shape
        if not np.isfinite(values[name]).all():
            raise InputError(f"{path}: {key} holds values that are not finite; fetch the file again")
    return Imported(values, used, unused, facts)


def _read(path: pathlib.Path, net: Shapes) -> tuple[Layout, Arranged, dict[str, str], bool]:
    """The layout of a file, its arrays for a net, its facts, and whether it states geometry or normalisation."""
    file = files.read_file(path)
    tensors = {key: value for key, value in file.tensors.items() if not key.endswith("num_batches_tracked")}
    file = dataclasses.replace(file, tensors=tensors)
    for name, known in _VALUES.items():
        if name in file.stated and file.stated[name] not in known:
            raise InputError(
                f"{path}: its metadata state {name} {file.stated[name]!r}, expected {' or '.join(known)}; correct them"
            )
    layout = recognise(path, tensors)
    implied = {"geometry": layout.geometry, "normalisation": layout.normalisation}
    facts = {"layout": layout.name, **implied, **file.stated}
    facts = {key: value for key, value in facts.items() if value is not None}
    return layout, layout.arrange(path, file, net), facts, bool(_VALUES.keys() & file.stated.keys())


def _declare(path: pathlib.Path, layout: Layout, facts: Mapping[str, str], backbone: Backbone) -> str:
    """How to say of a file without metadata that it is what the net expects."""
    if path.suffix != ".safetensors":
        return ""
    ours = {name: getattr(backbone, name) or facts.get(name) for name in SETTINGS}
    stated = {name: value for name, value in ours.items() if value is not None}
    return (
        f". {layout.name} implies the former; if the file was converted from others, write it again with what they "
        f"were trained with, such as: {files.declaration(path, **stated)}"
    )


def overlay(variables: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The variables {"params", "batch_stats"} with those at the paths of `values` replaced."""
    flat = traverse_util.flatten_dict(variables, sep="/", keep_empty_nodes=True)
    return traverse_util.unflatten_dict({**flat, **values}, sep="/")
