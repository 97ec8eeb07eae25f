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

from scarce_jax.errors import InputError
from scarce_jax.models.resnet import BLOCKS

KIND = tyro.conf.arg(name="", metavar="KIND", help="kind of the net; another kind starts from its own defaults.")
"""Annotation of the field `kind`, which makes its flag that of the net: `--segmenter.net`."""

INJECTIONS = ("before_pool", "after_pool", "after_final")
"""Places where the detailer injects the coarse mask: before the PPM, after it, and after the final block."""

_FIELDS = {
    "depth": (lambda depth: depth in BLOCKS, f"one of {', '.join(map(str, BLOCKS))}"),
    "inject": (lambda place: place in INJECTIONS, f"one of {', '.join(INJECTIONS)}"),
    "dropout": (lambda rate: 0 <= rate < 1, "at least 0 and less than 1"),
    "convolutions": (lambda numbers: len(numbers) == 5 and min(numbers) >= 1, "five numbers of at least 1"),
    "hidden": (lambda channels: channels is None or channels >= 1, "at least 1, or none"),
    "fc6_kernel": (lambda side: side >= 1, "at least 1"),
    "output_stride": (lambda stride: stride in (8, 16), "8 or 16"),
    "embedding": (lambda channels: channels >= 1, "at least 1"),
}
"""Field of a net's config -> whether a value is valid, and what is expected."""


def check_width(kind: str, width: int, multiple: int = 1) -> None:
    """Raises InputError unless `width` is a positive multiple of `multiple`."""
    if width < 1 or width % multiple:
        expected = "at least 1" if multiple == 1 else f"a positive multiple of {multiple}"
        raise InputError(f"{kind}: width is {width}; expected {expected}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetConfig:
    """Base class of a net's config. All fields of a subclass except `kind` are fields of the module.

    Attributes:
      kind: name of the architecture.
      module: class of the module.
      full_size: whether the logits have the size of the image.

    Raises:
      InputError: a field is out of its range.
    """

    kind: ClassVar[str]
    module: ClassVar[type[nn.Module]]
    full_size: ClassVar[bool] = True

    def __post_init__(self):
        check_width(self.kind, self.width)
        for name, value in self._settings().items():
            valid, expected = _FIELDS.get(name, (lambda value: True, ""))
            if not valid(value):
                raise InputError(f"{self.kind}: {name} is {value!r}; expected {expected}")

    def _settings(self) -> dict[str, Any]:
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names if name != "kind"}

    def build(self, classes: int, dtype: Any = jnp.float32) -> nn.Module:
        """The module with this number of classes and this dtype of the computation."""
        return self.module(classes=classes, dtype=dtype, **self._settings())
