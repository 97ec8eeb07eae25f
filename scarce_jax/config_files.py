"""Configs: resolved for the devices of this process, to JSON and back, and the name of their run folder."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import pydantic

from scarce_jax import methods
from scarce_jax.errors import InputError
from scarce_jax.ranges import check

log = logging.getLogger("scarce_jax")


def use_compilation_cache() -> None:
    """Stores compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR is set.

    If nothing can be written there, one warning says so, and programs are compiled anew in every process.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    folder = base / "scarce_jax" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        # JAX would warn of every program.
        log.warning("%s: compiled programs are not stored there (%s)", folder, error.strerror)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def resolve(config: Any, backend: str | None = None) -> Any:
    """The config with `dtype` "auto" resolved: float32 on CPUs, bfloat16 on accelerators.

    Args:
      backend: such as "gpu"; default that of this process.
    """
    if config.dtype == "auto":
        dtype = "float32" if (backend or jax.default_backend()) == "cpu" else "bfloat16"
        config = dataclasses.replace(config, dtype=dtype)
    return config


WITHOUT_EFFECT = ("runtime", "compare", "results", "paper", "eval_batch")
"""Fields, at any level, that do not change a result."""


def has_effect(path: str) -> bool:
    """Whether the field of a dotted path may change a result."""
    return not any(name in WITHOUT_EFFECT for name in path.split("."))


def default_workdir(config: Any, stem: str | None = None) -> pathlib.Path:
    """`runs/<stem>-<8 hex>`, with a hash of the config without `WITHOUT_EFFECT`; the stem defaults to the method."""

    def deciding(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: deciding(part) for key, part in value.items() if key not in WITHOUT_EFFECT}

    values = deciding(to_json(config))
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return pathlib.Path("runs") / f"{stem or methods.name_of(config)}-{digest}"


@functools.cache
def _adapter(config: type) -> pydantic.TypeAdapter:
    """Cached, because making one takes longer than using it."""
    return pydantic.TypeAdapter(config)


def to_json(config: Any) -> dict[str, Any]:
    """A config as JSON values.

    Raises:
      InputError: a value is not valid for its field, which the message names (see `ranges.check`).
    """
    check(config)
    return _adapter(type(config)).dump_python(config, mode="json")


def from_json(method: str, values: dict[str, Any]) -> Any:
    """The inverse of `to_json`.

    Raises:
      InputError: a value is not valid for its field, which the message names.
    """
    try:
        config = _adapter(methods.by_name(method).Config).validate_python(values)
    except pydantic.ValidationError as error:
        first, *others = error.errors()
        field = _field_of(first, values)
        # A union has an error for each of its members.
        expected = [first["msg"], *(other["msg"] for other in others if _field_of(other, values) == field)]
        raise InputError(f"config field {field}: {' or '.join(expected)}, found {first['input']!r}") from error
    check(config)
    return config


def warn_of_remarks(config: Any) -> None:
    """Logs the config's remarks as warnings."""
    for remark in config.remarks():
        log.warning("%s", remark)


def _field_of(error: Mapping[str, Any], values: Any) -> str:
    """The dotted path of the field that an error of pydantic is about, without the members of unions in it."""
    path = []
    for part in error["loc"]:
        keys = values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()
        if part in keys:
            values = values[part]
            path.append(str(part))
        elif error["type"] == "missing" and part == error["loc"][-1]:
            path.append(str(part))
    return ".".join(path)


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted path -> value of nested settings; a list is a single value unless it contains objects or lists."""
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        inner = enumerate(value)
    else:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, part in inner:
        flat |= leaves(part, f"{path}.{key}" if path else str(key))
    return flat
