"""The methods: each module has a `Config` dataclass and `recipe(config, info) -> Recipe`."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from scarce_jax.errors import InputError

NAMES = ("supervised", "detailer")


def by_name(name: str) -> ModuleType:
    """The method's module; raises InputError for an unknown name."""
    if name not in NAMES:
        raise InputError(f"method {name!r}: this version knows {', '.join(NAMES)}; update scarce-jax")
    return importlib.import_module(f"{__name__}.{name}")


def name_of(config: Any) -> str:
    """The method that a config belongs to; raises InputError if it is no method's config."""
    name = type(config).__module__.rpartition(".")[2]
    if name not in NAMES:
        wanted = ", ".join(f"{n}.Config" for n in NAMES)
        raise InputError(f"config: found a {type(config).__name__}, expected one of {wanted}")
    return name
