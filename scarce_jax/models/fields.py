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

from scarce_jax.ranges import check

KIND = tyro.conf.arg(name="", metavar="KIND", help="kind of the net; another kind starts from its own defaults.")
"""Annotation of the field `kind`, which makes its flag that of the net: `--segmenter.net`."""

INJECTIONS = ("before_pool", "after_pool", "after_final")
"""Places where the detailer injects the coarse mask: before the PPM, after it, and after the final block."""


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
