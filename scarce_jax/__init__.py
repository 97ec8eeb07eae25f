"""scarce_jax: semantic segmentation where pixel labels are scarce, in JAX and Flax.

`train`, `dry_run`, `sweep`, `evaluate`, `load`, `report`, `benchmark` and the `check_...` functions are what the
command line calls. The package is lazy: a worker process that imports a part of it does not load JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scarce_jax.api import dry_run, evaluate, load
    from scarce_jax.api import train as train
    from scarce_jax.api.benchmark import benchmark
    from scarce_jax.api.report import report
    from scarce_jax.api.sweep import sweep
    from scarce_jax.data.doctor import check_folders, check_prepared, check_source
    from scarce_jax.errors import InputError

__version__ = "0.1.0"

_HOMES = {
    "InputError": "errors",
    "benchmark": "api.benchmark",
    "check_folders": "data.doctor",
    "check_prepared": "data.doctor",
    "check_source": "data.doctor",
    "dry_run": "api",
    "evaluate": "api",
    "load": "api",
    "report": "api.report",
    "sweep": "api.sweep",
    "train": "api",
}

__all__ = [
    "InputError",
    "benchmark",
    "check_folders",
    "check_prepared",
    "check_source",
    "dry_run",
    "evaluate",
    "load",
    "report",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
