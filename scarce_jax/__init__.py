"""scarce_jax: semantic segmentation where pixel labels are scarce, in JAX and Flax.

`train`, `dry_run`, `evaluate` and `load` are what the command line calls. The package is lazy: a worker process that
imports a part of it does not load JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scarce_jax.api import dry_run, evaluate, load
    from scarce_jax.api import train as train
    from scarce_jax.errors import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "dry_run", "evaluate", "load", "train"]

_HOMES = {"InputError": "errors", "dry_run": "api", "evaluate": "api", "load": "api", "train": "api"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
