"""Descriptions of stages as JSON values. Equal descriptions mean that a finished stage can be skipped or reused."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.recipe import Epochs, Eval, Infer, Stage, Train, reads, sources

NO_EFFECT = {
    "Source": ("resident",),
    "Chosen": ("flag",),
    "Train": ("name", "remat"),
    "Infer": ("name", "status"),
    "Eval": ("name", "every", "keep_best", "patience", "no_window"),
    "Module": ("parent", "name"),
}
"""Fields that do not affect the output of a stage or the figures of a result, by type. `describe` has three exceptions.

* The keys of a `Train` without `keys_as` depend on its name.
* A `Train` with an `Eval` that has `keep_best` depends on all other fields of that `Eval` but the name and `no_window`.
* The batch size of an `Infer` or `Eval` has an effect only if the stage is `per_batch`.
"""

LATER = {
    "Source": {"part": None, "cache": None, "fit": "stretch", "interpolation": None},
    "Train": {"statistics_groups": 1},
    "Augment": {"scales": (), "translate": 0},
    "Combinatorial": {"resized": None, "beyond": False},
    "Optimizer": {"layer_decay": None},
    "Eval": {"threshold": None},
    "PseudoLabels": {"flip": False},
    "TrustedScores": {"flip": False},
    "DeepLabV3PlusDetailer": {"nearby_weight": 1.0},
    "ResNetConfig": {"deep_stem": False},
}
"""Fields that earlier versions did not have, by type, and the value that is as if they were absent. They are described
only with other values, so that a stage that an earlier version finished stays finished."""


def describe(
    stage: Stage | Eval,
    *,
    steps: int | Epochs | None,
    seed: int,
    versions: Mapping[str, str],
    roles: Mapping[str, str],
    fingerprints: Mapping[str, str],
    origins: Mapping[str, Any],
) -> dict[str, Any]:
    """Describes everything that determines the output of a stage, as JSON values.

    Args:
      stage: the stage or result.
      steps: optimizer steps of a `Train`; `Epochs` where their number depends on what an earlier stage leaves.
      seed: seed of the run.
      versions: dataset -> version.
      roles: role of the label budget -> hash of its ids. Only the roles that the stage reads are included.
      fingerprints: stage -> fingerprint, at least of the stages that this one reads.
      origins: role of a net -> content of its origin outside the run, which replaces the path of the origin.

    Raises:
      TypeError: a part of the stage is a closure, a lambda or an object of an unknown type.
    """
    description = plain(stage)
    for role, content in origins.items():
        description["nets"][role]["init_from"] = content
    if isinstance(stage, Train):
        description["steps"] = plain(steps)
        description["keys_as"] = stage.drawn_as
        description["evals"] = [
            _without_batch(plain(evaluation))
            | {"every": evaluation.every, "keep_best": evaluation.keep_best}
            | {"patience": evaluation.patience}
            for evaluation in stage.evals
            if evaluation.keep_best
        ]
    elif not (isinstance(stage, Infer) and stage.per_batch):
        description = _without_batch(description)
    return description | {
        "seed": seed,
        "datasets": {s.dataset: versions[s.dataset] for s in sources(stage).values()},
        "roles": {role: roles[role] for role in sorted(_budget_roles(stage) & set(roles))},
        "reads": {name: fingerprints[name] for name in sorted({artifact.stage for artifact in reads(stage)})},
    }


def plain(value: Any) -> Any:
    """Converts a value to JSON: dataclasses and Flax modules to type and fields, functions to names, arrays to hashes.

    Raises:
      TypeError: the value, or a part of it, has an unknown type.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [plain(part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = "Module" if isinstance(value, nn.Module) else type(value).__name__
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        unset = {name for name, absent in LATER.get(type(value).__name__, {}).items() if fields[name] == absent}
        names = [name for name in fields if name not in NO_EFFECT.get(kind, ()) and name not in unset]
        return {"type": _qualified(type(value)), **{name: plain(fields[name]) for name in names}}
    if isinstance(value, jax.ShapeDtypeStruct):
        return [list(value.shape), str(value.dtype)]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return hash_array(value)
    if isinstance(value, functools.partial):
        return {"type": plain(value.func), "args": plain(value.args), "keywords": plain(value.keywords)}
    if isinstance(value, FunctionType) and "<" not in value.__qualname__:
        return _qualified(value)
    try:
        return jnp.dtype(value).name
    except TypeError:
        raise TypeError(
            f"{value!r} ({type(value).__name__}) cannot be described; expected plain values, frozen dataclasses (with "
            f"__call__ for losses, predictions and transforms) or functions of a module"
        ) from None


def _qualified(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _without_batch(description: dict[str, Any]) -> dict[str, Any]:
    source = {key: value for key, value in description["source"].items() if key != "batch"}
    return {**description, "source": source}


def _budget_roles(stage: Stage | Eval) -> set[str]:
    return {
        field
        for source in sources(stage).values()
        for field in (*source.id_parts, *source.fields, *source.labels, *source.having)
        if isinstance(field, str)
    }


def hash_array(array: Any) -> str:
    """Returns a short hash of the bytes, shape and dtype of an array."""
    array = np.asarray(array)
    return hashlib.sha256(f"{array.shape}{array.dtype}".encode() + array.tobytes()).hexdigest()[:16]


def fingerprint(description: Mapping[str, Any]) -> str:
    """Returns the SHA-256 (hex) of the canonical JSON of a description."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def difference(before: Any, now: Any, path: str = "") -> list[str]:
    """Lists the differences of two descriptions as lines `path: before -> now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in sorted(set(before) | set(now)):
            where = f"{path}.{key}" if path else key
            lines += difference(before.get(key, "(absent)"), now.get(key, "(absent)"), where)
        return lines
    return [] if before == now else [f"{path}: {json.dumps(before)} -> {json.dumps(now)}"]
