"""Reading of Keras' files: layers models of TensorFlow.js (model.json and its shards), and HDF5.

Names of arrays are "LAYER/LEAF", such as "conv1/kernel", and in the .weights.h5 of Keras 3 the path of the array, such
as "block1/layers/conv2d/vars/0".
"""

from __future__ import annotations

import json
import math
import pathlib
import re
from typing import Any

import numpy as np

from scarce_jax.errors import InputError

_AGAIN = "fetch it again, together with the files beside it"


def _manifest(path: pathlib.Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The groups of weights that a model.json lists, and all of its content."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        groups = content["weightsManifest"]
        for group in groups:
            if not all(isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) for name in group["paths"]):
                raise ValueError("its shards are not names of files beside it")
            for entry in group["weights"]:
                if not (isinstance(entry["name"], str) and all(type(n) is int and n >= 0 for n in entry["shape"])):
                    raise ValueError(f"the shape of {entry['name']} is {entry['shape']}")
        return groups, content
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged, or not the model.json of a TensorFlow.js model ({type(error).__name__}: {error}); "
            f"{_AGAIN}"
        ) from error


def shards(path: pathlib.Path) -> list[pathlib.Path]:
    """The files that hold the arrays of a model.json.

    Raises:
      InputError: it is damaged, or a file is missing.
    """
    files = [path.with_name(name) for group in _manifest(path)[0] for name in group["paths"]]
    if missing := [file for file in files if not file.is_file()]:
        raise InputError(
            f"{path}: {len(missing)} of its {len(files)} files are missing, as {missing[0].name}; {_AGAIN}"
        )
    return files


def read_tfjs(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, float]]:
    """Arrays, nothing stated, and epsilons of a model.json of TensorFlow.js.

    Raises:
      InputError: a file is missing or damaged, or its arrays are quantised.
    """
    shards(path)
    groups, content = _manifest(path)
    tensors = {}
    for group in groups:
        data, start = b"".join(path.with_name(name).read_bytes() for name in group["paths"]), 0
        for entry in group["weights"]:
            name, shape = entry["name"], entry["shape"]
            if entry.get("dtype") != "float32" or "quantization" in entry:
                raise InputError(f"{path}: {name} is not float32, or quantised; use a model in full precision")
            end = start + 4 * math.prod(shape)
            if end <= len(data):
                tensors[name] = np.frombuffer(data[start:end], "<f4").reshape(shape)
            start = end
        if start != len(data):
            raise InputError(f"{path}: its files hold {len(data)} bytes of arrays, expected {start}; {_AGAIN}")
    return tensors, {}, _epsilons(content)


def _epsilons(content: dict[str, Any]) -> dict[str, float]:
    """Layer -> epsilon of batch normalisation, as far as the topology says it."""
    try:
        layers = content["modelTopology"]["model_config"]["config"]["layers"]
        settings = (layer["config"] for layer in layers)
        return {config["name"]: float(config["epsilon"]) for config in settings if "epsilon" in config}
    except (KeyError, TypeError, ValueError):
        return {}


def read_h5(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, float]]:
    """Arrays of an HDF5 file of Keras; nothing stated, no epsilons.

    Links to other files are not followed, and arrays that lie in other files are refused.

    Raises:
      InputError: h5py is not installed, or the file is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{path}: reading .h5 files needs h5py; install it: `pip install 'scarce-jax[keras]'`"
        ) from error
    tensors = {}

    def read(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.dtype.kind != "f":
            return
        if item.external or item.is_virtual or item.id.get_storage_size() < item.nbytes:
            raise ValueError(f"{name} does not lie in the file, or not whole")
        tensors[_layer_name(name)] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(read)
    except Exception as error:  # The library raises many kinds for damaged bytes.
        raise InputError(
            f"{path}: damaged, or not an HDF5 file ({type(error).__name__}: {error}); fetch it again"
        ) from error
    return tensors, {}, {}


def _layer_name(name: str) -> str:
    """ "model_weights/conv1/conv1/kernel:0" -> "conv1/kernel"; paths of Keras 3 stay as they are."""
    if not name.endswith(":0"):
        return name
    return "/".join(name.removesuffix(":0").split("/")[-2:])
