"""The methods. Each one is a module with a dataclass `Config` and a function `recipe(config, info) -> Recipe`.

A method may also be a module outside this package. Its name is then the full name of the module.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from types import ModuleType
from typing import Any

from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.recipe import Recipe, with_results, without_measurements

NAMES = ("supervised", "detailer", "auxiliary", "adversarial", "consistency", "transfer", "decoupled", "three_step")
"""Names of the methods of this package."""


def by_name(name: str) -> ModuleType:
    """The module of a method: one of this package, or one that this process has imported.

    Nothing else is imported, because a name may come from the run folder of a stranger.

    Raises:
      InputError: there is no such method, or its module is not imported.
    """
    if name in NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    module = sys.modules.get(name)
    if module is None:
        raise InputError(
            f"method {name!r}: expected one of {', '.join(NAMES)}; the module of any other method must be imported "
            f"before (`import {name}`), or, if you trust who made the folder, allow it with --allow-import "
            f"(allow_import=True)"
        )
    if not _is_method(module):
        raise InputError(f"method {name!r}: this module has no dataclass Config and function recipe")
    return module


def import_method(name: str) -> None:
    """Imports the module of a method, which runs its code; raises InputError if it cannot be imported."""
    if name in NAMES:
        return
    try:
        importlib.import_module(name)
    except Exception as error:  # A module may raise anything.
        raise InputError(
            f"method {name!r}: cannot be imported ({type(error).__name__}: {error}); work in the folder that holds the "
            f"module, or install it"
        ) from error


def _is_method(module: ModuleType | None) -> bool:
    return dataclasses.is_dataclass(getattr(module, "Config", None)) and callable(getattr(module, "recipe", None))


def name_of(config: Any) -> str:
    """Name of the method whose `Config` this is. Raises InputError if there is no such method."""
    module = type(config).__module__
    if module.startswith(f"{__name__}.") and (name := module.removeprefix(f"{__name__}.").split(".")[0]) in NAMES:
        return name
    outside = sys.modules.get(module)
    if _is_method(outside) and outside.Config is type(config):
        return outside.__name__
    expected = ", ".join(f"{name}.Config" for name in NAMES)
    raise InputError(
        f"config: found a {type(config).__name__}, expected one of {expected}, or the Config of a module that can be "
        f"imported and has a function `recipe`"
    )


def recipe_of(config: Any, info: DatasetInfo) -> Recipe:
    """The recipe of a config, with the results that `config.results` names; without measurements if there is no split.

    Raises:
      InputError: the config does not fit the dataset, or has no such result.
    """
    # The results may be those of the comparison.
    whole = dataclasses.replace(config, compare=True) if config.results else config
    recipe = without_measurements(by_name(name_of(config)).recipe(whole, info))
    return with_results(recipe, config.results) if config.results else recipe
