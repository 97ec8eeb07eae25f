"""The methods: each module has a `Config` dataclass and `recipe(config, info) -> Recipe`.

A method may stand outside this package: it then goes by its module's full name.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from scarce_jax.errors import InputError

NAMES = ("supervised", "detailer", "auxiliary", "adversarial", "transfer", "decoupled")


def by_name(name: str) -> ModuleType:
    """The method's module; raises InputError for a name that is none of ours and cannot be imported."""
    try:
        return importlib.import_module(f"{__name__}.{name}" if name in NAMES else name)
    except ImportError as error:
        raise InputError(
            f"method {name!r}: this version knows {', '.join(NAMES)}, and no module of that name can be imported "
            f"({error}); update scarce-jax, or work in the folder that holds the module"
        ) from error


def name_of(config: Any) -> str:
    """The method that a config belongs to; raises InputError if it is no method's config."""
    inside = type(config).__module__.removeprefix(f"{__name__}.").split(".")[0]
    if type(config).__module__.startswith(f"{__name__}.") and inside in NAMES:
        return inside
    try:
        module = importlib.import_module(type(config).__module__)
    except ImportError:
        module = None
    if getattr(module, "Config", None) is type(config) and callable(getattr(module, "recipe", None)):
        return module.__name__
    wanted = ", ".join(f"{n}.Config" for n in NAMES)
    raise InputError(
        f"config: found a {type(config).__name__}, expected one of {wanted}, or the Config of a module that can be "
        f"imported and has a recipe"
    )
