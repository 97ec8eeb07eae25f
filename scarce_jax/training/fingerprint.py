"""What a stage is, as plain data: the ground on which a finished stage is skipped, resumed, reused or refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from scarce_jax.recipe import Artifact, Eval, Infer, Mean, Stage, Train, id_parts, reads, sources


def plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} ({type(value).__name__}) is not a plain value; a stage's settings hold values only")


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
    """Everything that decides what the stage leaves.

    Args:
      steps: resolved optimizer steps of a `Train`.
      versions: dataset -> version.
      roles: role of the label budget -> hash of its ids; of them only those that the stage reads count, so that stages
        which another budget does not concern stay equal.
      fingerprints: stage -> fingerprint, of those that this one reads.
      origins: role -> what its origin outside the run holds; where that lies does not count.
    """
    nets = {
        role: {
            "module": repr(net.module),
            "optim": plain(net.optim),
            "init_from": origins.get(role, plain(net.init_from)),
        }
        for role, net in stage.nets.items()
    }
    found = {
        "kind": type(stage).__name__,
        "seed": seed,
        "nets": nets,
        "sources": {name: _describe_source(source) for name, source in sources(stage).items()},
        "datasets": {s.dataset: versions[s.dataset] for s in sources(stage).values()},
        "roles": {role: roles[role] for role in sorted(_read_roles(stage) & set(roles))},
        "consts": {k: plain(v) if isinstance(v, Artifact) else hash_array(v) for k, v in stage.consts.items()},
        "reads": {name: fingerprints[name] for name in sorted({a.stage for a in reads(stage)})},
    }
    if isinstance(stage, Train):
        found |= {
            "steps": steps,
            "settings": plain(stage.settings),
            "keys_as": stage.keys_as,
            "keep_best": [[e.name, e.every, e.keep_best] for e in stage.evals if e.keep_best],
        }
    elif isinstance(stage, Infer):
        write = {"mean": plain(stage.write.into)} if isinstance(stage.write, Mean) else "records"
        found |= {"settings": plain(stage.settings), "write": write}
    else:
        found |= {"composite": stage.composite, "views": plain(stage.views)}
        # Only where they are used, so that figures of runs without them stay known.
        further = {"given": stage.given, "hidden_truth": stage.hidden_truth, "groups": stage.groups}
        found |= {name: plain(value) for name, value in further.items() if value}
    return found


def _read_roles(stage: Stage | Eval) -> set[str]:
    return {
        x
        for s in sources(stage).values()
        for x in (*id_parts(s), *s.fields, *s.labels, *s.having)
        if isinstance(x, str)
    }


def _describe_source(source: Any) -> dict[str, Any]:
    names = ("dataset", "split", "ids", "take", "fields", "labels", "batch", "size")
    having = {"having": plain(source.having)} if source.having else {}
    return {name: plain(getattr(source, name)) for name in names} | having


def hash_array(array: Any) -> str:
    """A short hash of an array's bytes, shape and dtype."""
    import numpy as np

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
