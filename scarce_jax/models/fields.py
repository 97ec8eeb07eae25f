"""What the configs of nets have in common: how their kind is written, and the checks of their fields.

A net's config is a frozen dataclass beside its module. Its field `kind` tells it apart: on the command line it is the
net's own flag (`--segmenter.net dsnet`), in JSON the entry "kind".
"""

from __future__ import annotations

from collections.abc import Sequence

import tyro

from scarce_jax.errors import InputError

KIND = tyro.conf.arg(name="", metavar="KIND", help="kind of the net; another kind starts from its own defaults.")
"""Annotation of the field `kind`, whose flag is that of the field that holds the net: `--segmenter.net`."""


def check_width(kind: str, width: int, multiple: int = 1) -> None:
    """Raises InputError unless `width` is a positive multiple of `multiple`."""
    if width < 1 or width % multiple:
        expected = "at least 1" if multiple == 1 else f"a positive multiple of {multiple}"
        raise InputError(f"{kind}: width is {width}; expected {expected}")


def check_rate(kind: str, rate: float) -> None:
    """Raises InputError unless `rate` is a dropout rate, 0 <= rate < 1."""
    if not 0 <= rate < 1:
        raise InputError(f"{kind}: dropout is {rate}; expected at least 0 and less than 1")


def check_choice(kind: str, field: str, value: object, choices: Sequence[object]) -> None:
    """Raises InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{kind}: {field} is {value!r}; expected one of {', '.join(map(str, choices))}")


def check_vgg(kind: str, convolutions: Sequence[int]) -> None:
    """Raises InputError unless these are numbers of convolutions of VGG-16's five groups, at least 1 each."""
    if len(convolutions) != 5 or min(convolutions) < 1:
        raise InputError(f"{kind}: convolutions are {tuple(convolutions)}; expected five numbers of at least 1")
