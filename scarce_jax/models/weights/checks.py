"""Comparison of a file's backbone with that of the net."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
from flax import traverse_util

from scarce_jax.errors import InputError
from scarce_jax.models.dinov2 import SIZES
from scarce_jax.models.resnet import BLOCKS

TRUNK = "backbone"
"""Name of the pretrained part of a net."""

SETTINGS = ("geometry", "normalisation")
"""Fields of a backbone's config that must be those of the weights, though any weights have the right shapes."""

_Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What parameters do not show of a net's backbone.

    Attributes:
      geometry: see `ResNetConfig`; None if the backbone has no such setting.
      normalisation: see `BackboneConfig`; None as above.
      flag: the flag of the backbone, for messages: "--segmenter.net.backbone".
    """

    geometry: str | None = None
    normalisation: str | None = None
    flag: str = "--STAGE.net.backbone"

    @classmethod
    def of(cls, net: nn.Module, flag: str) -> Backbone:
        """That of a net whose backbone, if it has one, is a field of the module."""
        module = getattr(net, TRUNK) if any(field.name == TRUNK for field in dataclasses.fields(net)) else None
        return cls(**settings({} if module is None else vars(module)), flag=flag)


def settings(fields: Mapping[str, Any]) -> dict[str, str | None]:
    """SETTINGS of a backbone, from the fields of its module; None for those that it has not."""
    geometry = "caffe" if fields.get("caffe") else "torchvision"
    return {"geometry": geometry if "caffe" in fields else None, "normalisation": fields.get("normalisation")}


def flat_shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays of {"params", "batch_stats"}, by path ("params/backbone/conv1/kernel")."""
    return {path: tuple(x.shape) for path, x in traverse_util.flatten_dict(variables, sep="/").items()}


def trunk(shapes: _Shapes) -> dict[str, tuple[int, ...]]:
    """Those of the backbone alone."""
    return {name: shape for name, shape in shapes.items() if name.split("/")[1] == TRUNK}


def check_backbone(where: str, has: Mapping[str, str | None], net: Backbone, remark: str = "") -> None:
    """Checks that the net computes what its weights were trained in.

    Args:
      where: the weights, for the message.
      has: of SETTINGS, those of the weights; None or absent if they are not known.
      net: the net's backbone.
      remark: what else may be done.

    Raises:
      InputError: a setting differs.
    """
    pairs = {name: (has.get(name), getattr(net, name)) for name in SETTINGS}
    wrong = {name: pair for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]}
    if wrong:
        trained = " and ".join(f"{name} {theirs}" for name, (theirs, _) in wrong.items())
        expected = " and ".join(f"{name} {ours}" for name, (_, ours) in wrong.items())
        flags = " ".join(f"{net.flag}.{name} {theirs}" for name, (theirs, _) in wrong.items())
        raise InputError(
            f"{where}: the weights were trained with {trained}, and the net has {expected}; set {flags}{remark}"
        )


def _setting(name: str, value: object) -> str:
    """A flag of the command line without its prefix; boolean ones take no value."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return flag if value else f"no-{flag}"
    return f"{flag} {value}"


def check_trunk(path: pathlib.Path, layout: str, found: str, theirs: _Shapes, ours: _Shapes, flag: str) -> None:
    """Checks that a file holds all of the net's backbone and nothing else.

    Args:
      path: path of the file.
      layout, found: name of its layout, and kind of the backbone that has it.
      theirs, ours: shapes by parameter path of the backbones of the file and of the net.
      flag: flag of the net's backbone.

    Raises:
      InputError: they differ in kind, depth, stem, batch normalisation, width, arrays or shapes.
    """
    if found != (expected := kind(ours)):
        what = _WORDS.get(expected, "no backbone that can be pretrained")
        advice = f"set {flag} {found}, or use" if expected else "use a net with one, or"
        raise InputError(f"{path}: holds {_WORDS[found]} ({layout}), and the net has {what}; {advice} other weights")
    of_net = features(ours)
    for name, value in features(theirs).items():
        if value != of_net[name] and None not in (value, of_net[name]):
            change = "use" if value[1] is None else f"set {flag}.{_setting(name, value[1])}, or use"
            raise InputError(
                f"{path}: the file looks like {value[0]}, and the net is {of_net[name][0]}; {change} another file"
            )
    missing, unknown = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if missing or unknown:
        raise InputError(
            f"{path}: its arrays differ from those of the net: {len(missing)} are missing {missing[:6]}, "
            f"{len(unknown)} have no place in the net {unknown[:6]}; use a file of the same architecture"
        )
    wrong = [f"{n} has shape {list(theirs[n])}, expected {list(ours[n])}" for n in ours if theirs[n] != ours[n]]
    if wrong:
        raise InputError(f"{path}: {len(wrong)} arrays do not fit the net: {'; '.join(wrong[:3])}")


_WORDS = {"resnet": "a ResNet", "vgg16": "a VGG-16", "dinov2": "a DINOv2"}


def kind(shapes: Iterable[str]) -> str | None:
    """Kind of a backbone, as in its config, by the paths of its arrays; None if there is none of a known kind."""
    names = {name.split("/")[2] for name in shapes if name.split("/")[1] == TRUNK}
    if any(re.fullmatch(r"layer\d_block\d+", name) for name in names):
        return "resnet"
    if "class_token" in names:
        return "dinov2"
    return "vgg16" if any(re.fullmatch(r"conv\d_\d", name) for name in names) else None


def features(shapes: _Shapes) -> dict[str, tuple[str, Any] | None]:
    """What a backbone is: feature -> (in words, value of the setting of this name). None if that cannot be seen.

    The value is None if there is no such setting, or none with this value.
    """
    if kind(shapes) == "resnet":
        stem = shapes.get(f"params/{TRUNK}/conv1/kernel")
        deep = f"params/{TRUNK}/conv2/kernel" in shapes
        words = "the deep stem of three 3x3 convolutions" if deep else "the 7x7 stem"
        return {
            "depth": _depth(shapes),
            "deep_stem": (f"a ResNet with {words}", deep),
            "width": stem and (f"a ResNet of width {stem[-1]}", stem[-1]),
        }
    if kind(shapes) == "vgg16":
        first = shapes.get(f"params/{TRUNK}/conv1_1/kernel")
        normalised = any(re.search(r"/bn\d_\d/", name) for name in shapes)
        return {
            "batch_norm": (f"a VGG-16 {'with' if normalised else 'without'} batch normalisation", normalised),
            "width": first and (f"a VGG-16 of width {first[-1]}", first[-1]),
        }
    if kind(shapes) == "dinov2":
        registers = f"params/{TRUNK}/registers" in shapes
        return {
            "size": _size(shapes),
            "registers": (f"a DINOv2 {'with' if registers else 'without'} registers", registers),
        }
    return {}


def _size(shapes: _Shapes) -> tuple[str, str | None]:
    width = shapes[f"params/{TRUNK}/class_token"][-1]
    blocks = len({match[0] for name in shapes if (match := re.search(r"/block\d+/", name))})
    for name, size in SIZES.items():
        if (size.width, size.blocks) == (width, blocks):
            return f"a DINOv2 of size {name}", name
    return f"a vision transformer of {blocks} blocks and {width} channels", None


def _depth(shapes: Iterable[str]) -> tuple[str, int | None]:
    names = {match[0] for name in shapes if (match := re.search(r"layer\d_block\d+", name))}
    blocks = tuple(sum(block.startswith(f"layer{layer}_") for block in names) for layer in (1, 2, 3, 4))
    bottleneck = any(name.endswith("layer1_block0/conv3/kernel") for name in shapes)
    for depth, usual in BLOCKS.items():
        if usual == blocks and (depth >= 50) == bottleneck:
            return f"ResNet-{depth}", depth
    kinds = "bottlenecks" if bottleneck else "basic blocks"
    return f"a ResNet with {', '.join(map(str, blocks))} {kinds}", None
