"""scarce_jax: semantic segmentation where pixel labels are scarce, in JAX and Flax.

`train`, `evaluate`, `predict`, `load` and `replay` are what the command line calls; `scarce_jax.sweep`,
`scarce_jax.report`, `scarce_jax.benchmark` and `scarce_jax.doctor` are tools beside them. The package is lazy: a worker
process that imports a part of it does not load JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scarce_jax.errors import InputError
    from scarce_jax.runs import evaluate, load, predict, replay, train

__version__ = "0.1.0"

_HOMES = {
    "InputError": "errors",
    "evaluate": "runs",
    "load": "runs",
    "predict": "runs",
    "replay": "runs",
    "train": "runs",
}

__all__ = ["InputError", "evaluate", "load", "predict", "replay", "train"]


if not TYPE_CHECKING:  # Where it stands, no name is wrong to a type checker.

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
