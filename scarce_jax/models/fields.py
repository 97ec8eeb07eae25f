"""Base class of the configs of nets, and the annotation of their kind.

A net's config is a frozen dataclass in the same file as its module. Its field `kind` names the architecture. On the
command line it is the flag of the net itself (`--segmenter.net dsnet`), in JSON it is the entry "kind".
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import tyro

from scarce_jax.models.normalisation import Normalisation
from scarce_jax.models.tags import TagClassifier
from scarce_jax.ranges import check

KIND = tyro.conf.arg(name="", metavar="KIND", help="kind of the net; another kind starts from its own defaults.")
"""Annotation of the field `kind`, which makes its flag that of the net: `--segmenter.net`."""

INJECTIONS = ("before_pool", "after_pool", "after_final")
"""Places where the detailer injects the coarse mask: before the PPM, after it, and after the final block."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Base class of the config of a backbone, the part of a net that may be pretrained.

    A backbone is a module that is called as `backbone(image, train=...)`, with images [B, H, W, 3] that are normalised
    by ImageNet's mean and deviation. It returns a mapping from the names of its levels to features [B, h, w, C], in the
    order of the computation. Its parameters are at "backbone/" in every net.

    Attributes:
      kind: name of the architecture.
      patch: sides of images must be multiples of it.
      low_level: the last level of a quarter of the image's size, or the first level if none has it.
      normalisation: the input normalisation of the weights (see `models.normalisation`), into which the backbone
        converts its images.
    """

    kind: ClassVar[str]
    patch: ClassVar[int] = 1
    low_level: ClassVar[str] = "layer1"

    normalisation: Normalisation = "imagenet"

    @property
    def head_width(self) -> int:
        """Unit with which the layers of a head scale: 64 in the papers."""
        raise NotImplementedError

    @property
    def frozen_pattern(self) -> str | None:
        """Regular expression that finds the paths of the parameters that training must not change; None for none."""
        raise NotImplementedError

    def build(self, stride: int, dtype: Any = jnp.float32) -> nn.Module:
        """The module.

        Args:
          stride: stride of the last level, 8, 16 or 32. A backbone that has only one stride ignores it.
          dtype: dtype of the computation and the features.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetConfig:
    """Base class of a net's config. All fields of a subclass except `kind` are fields of the module.

    Attributes:
      kind: name of the architecture.
      module: class of the module.
      full_size: whether the logits have the size of the image.
    """

    kind: ClassVar[str]
    module: ClassVar[type[nn.Module]]
    full_size: ClassVar[bool] = True

    def _settings(self) -> dict[str, Any]:
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if name != "kind"}

    def build(self, classes: int, dtype: Any = jnp.float32) -> nn.Module:
        """The module with this number of classes and this dtype of the computation.

        Raises:
          InputError: a field is out of its range.
        """
        check(self, self.kind)
        return self.module(classes=classes, dtype=dtype, **self._settings())


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneNetConfig(NetConfig):
    """Base class of the config of a net on any backbone.

    The module has a field `backbone`. Its fields `width`, `patch` and `low_level`, if it has them, are the backbone's
    `head_width`, `patch` and `low_level`.

    Attributes:
      backbone: the backbone.
      stride: stride of its last features; a backbone that has only one ignores it.
      dropout: rate of the dropout of the net's tag classifier.
    """

    backbone: BackboneConfig
    stride: ClassVar[int] = 8
    dropout: ClassVar[float] = 0.1

    def trunk(self, dtype: Any = jnp.float32) -> nn.Module:
        """The module of the backbone, at the stride of this net."""
        return self.backbone.build(self.stride, dtype)

    def _settings(self) -> dict[str, Any]:
        settings = {name: value for name, value in super()._settings().items() if name not in ("backbone", "stride")}
        offered = {name: getattr(self.backbone, name) for name in ("patch", "low_level")}
        offered["width"] = self.backbone.head_width
        known = {field.name for field in dataclasses.fields(self.module)}
        return settings | {name: value for name, value in offered.items() if name in known}

    def build(self, classes: int, dtype: Any = jnp.float32) -> nn.Module:
        check(self, self.kind)
        return self.module(classes=classes, backbone=self.trunk(dtype), dtype=dtype, **self._settings())

    def classifier(self, tags: int, dtype: Any = jnp.float32) -> TagClassifier:
        """A classifier of image tags on the backbone of the net, with the same dropout."""
        return TagClassifier(backbone=self.trunk(dtype), classes=tags, dropout=self.dropout)
