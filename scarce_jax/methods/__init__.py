"""The methods. Each one is a module with a dataclass `Config` and a function `recipe(config, info) -> Recipe`.

A method may also be a module outside this package. Its name is then the full name of the module.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.recipe import Recipe, without_measurements

NAMES = ("supervised", "detailer", "auxiliary", "adversarial", "transfer", "decoupled", "three_step")
"""Names of the methods of this package."""


def by_name(name: str) -> ModuleType:
    """The module of a method. Raises InputError if there is no such method."""
    try:
        return importlib.import_module(f"{__name__}.{name}" if name in NAMES else name)
    except ImportError as error:
        raise InputError(
            f"method {name!r}: expected one of {', '.join(NAMES)}, or a module, but no module of that name can be "
            f"imported ({error}); update scarce-jax, or work in the folder that holds the module"
        ) from error


def name_of(config: Any) -> str:
    """Name of the method whose `Config` this is. Raises InputError if there is no such method."""
    module = type(config).__module__
    if module.startswith(f"{__name__}.") and (name := module.removeprefix(f"{__name__}.").split(".")[0]) in NAMES:
        return name
    try:
        outside = importlib.import_module(module)
    except ImportError:
        outside = None
    if getattr(outside, "Config", None) is type(config) and callable(getattr(outside, "recipe", None)):
        return outside.__name__
    expected = ", ".join(f"{name}.Config" for name in NAMES)
    raise InputError(
        f"config: found a {type(config).__name__}, expected one of {expected}, or the Config of a module that can be "
        f"imported and has a function `recipe`"
    )


def recipe_of(config: Any, info: DatasetInfo) -> Recipe:
    """The recipe of a config; without measurements if its `eval_split` is None.

    Raises:
      InputError: the config does not fit the dataset.
    """
    return without_measurements(by_name(name_of(config)).recipe(config, info))
