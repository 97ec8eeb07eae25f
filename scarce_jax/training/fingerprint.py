"""What a stage is, as plain data: the ground on which a finished stage is skipped, resumed, reused or refused."""

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

from scarce_jax.recipe import Eval, Infer, Stage, Train, id_parts, reads, sources

NO_EFFECT = {
    "Source": ("resident",),
    "Train": ("name",),
    "Infer": ("name", "status"),
    "Eval": ("name", "every", "keep_best", "patience", "maps"),
    "Module": ("parent", "name"),
}
"""Fields that cannot change what a stage leaves or a result measures. There are three exceptions.

A `Train` without `keys_as` draws by its name. A `Train` whose `Eval` decides what is kept depends on all of that
evaluation, but for its name. The batch of an `Infer` or an `Eval` counts only where the stage is `per_batch`.
"""


def describe(
    stage: Stage | Eval,
    *,
    steps: int | None,
    seed: int,
    versions: Mapping[str, str],
    roles: Mapping[str, str],
    fingerprints: Mapping[str, str],
    origins: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that decides what the stage leaves, as JSON values.

    Args:
      steps: resolved optimizer steps of a `Train`.
      versions: dataset -> version.
      roles: role of the label budget -> hash of its ids. The roles that the stage reads count, so that stages which
        another budget does not concern stay equal.
      fingerprints: stage -> fingerprint, of those that this one reads.
      origins: role -> what its origin outside the run holds; where that lies does not count.

    Raises:
      TypeError: a part of the stage cannot be described: a closure, a lambda, an object of an unknown type.
    """
    description = plain(stage)
    for role, content in origins.items():
        description["nets"][role]["init_from"] = content
    if isinstance(stage, Train):
        description["steps"] = steps
        description["keys_as"] = stage.keys_as or stage.name
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
    """A value as JSON: dataclasses and Flax modules by type and fields, functions of a module by name, arrays by hash.

    Raises:
      TypeError: it is none of these, or a container of none of these.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [plain(part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = "Module" if isinstance(value, nn.Module) else type(value).__name__
        names = [f.name for f in dataclasses.fields(value) if f.name not in NO_EFFECT.get(kind, ())]
        return {"type": _qualified(type(value)), **{name: plain(getattr(value, name)) for name in names}}
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
            f"{value!r} ({type(value).__name__}) cannot be described; what a stage is made of must be plain values, "
            f"frozen dataclasses (with __call__ for losses, predictions and transforms) or functions of a module"
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
        for field in (*id_parts(source), *source.fields, *source.labels, *source.having)
        if isinstance(field, str)
    }


def hash_array(array: Any) -> str:
    """A short hash of an array's bytes, shape and dtype."""
    array = np.asarray(array)
    return hashlib.sha256(f"{array.shape}{array.dtype}".encode() + array.tobytes()).hexdigest()[:16]


def fingerprint(description: Mapping[str, Any]) -> str:
    """sha256 (hex) of the canonical JSON of a description."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def difference(before: Any, now: Any, path: str = "") -> list[str]:
    """What differs between two descriptions, one line `path: before -> now` each."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in sorted(set(before) | set(now)):
            where = f"{path}.{key}" if path else key
            lines += difference(before.get(key, "(absent)"), now.get(key, "(absent)"), where)
        return lines
    return [] if before == now else [f"{path}: {json.dumps(before)} -> {json.dumps(now)}"]
