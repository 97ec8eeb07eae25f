"""Locating, downloading and reading files of weights."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError, safe_open

from scarce_jax.errors import InputError, printable
from scarce_jax.models.weights import keras_files

HUB = "hf:"
"""Prefix of the names of files to download from the Hugging Face Hub."""

HUB_FILE = "model.safetensors"
"""The file of a model on the Hub that is downloaded."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".h5", "model.json")
"""Endings of files of weights. A model.json of TensorFlow.js lies beside the files that hold its arrays."""

SAFE_TORCH = (2, 6)
"""The first version of PyTorch whose `weights_only` runs no code of the file (CVE-2025-32434)."""

STATED = ("geometry", "normalisation", "licence", "source", "name")
"""Keys of a file's metadata that say what it is."""


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """Content of a file of weights.

    Attributes:
      tensors: the file's key -> array, in its own layout.
      stated: what the file says about itself, by the keys of STATED; empty for most files.
      epsilons: layer -> epsilon of its batch normalisation, where the file says so.
    """

    tensors: dict[str, np.ndarray]
    stated: Mapping[str, str] = dataclasses.field(default_factory=dict)
    epsilons: Mapping[str, float] = dataclasses.field(default_factory=dict)


def locate(source: str) -> pathlib.Path:
    """Path of a file of weights.

    Args:
      source: a path, or "hf:OWNER/NAME" for the file model.safetensors of that model, which is downloaded once.

    Raises:
      InputError: the file does not exist or cannot be downloaded.
    """
    if not source.startswith(HUB):
        path = pathlib.Path(source)
        if not path.is_file():
            raise InputError(
                f"weights {source}: no such file; give its path, or hf:OWNER/NAME to download one (`scarce-jax "
                f"weights` lists names)"
            )
        return path
    name = source.removeprefix(HUB)
    by_hand = f"download {url(name)} with a browser, and give the path of the file in place of {source}"
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise InputError(
            f"weights {source}: downloading needs the package huggingface_hub (`pip install 'scarce-jax[hub]'`); or "
            f"{by_hand}"
        ) from error
    try:
        return pathlib.Path(hf_hub_download(name, HUB_FILE))
    except Exception as error:  # The exceptions differ between versions, and all of them have the same remedy.
        reason = str(error).strip().splitlines()
        raise InputError(
            f"weights {source}: cannot be downloaded ({type(error).__name__}: {reason[0] if reason else ''}); check "
            f"name and network, or {by_hand}"
        ) from error


def url(name: str) -> str:
    """Address of the file of a model "OWNER/NAME" on the Hugging Face Hub."""
    return f"https://huggingface.co/{name}/resolve/main/{HUB_FILE}"


def file_hash(path: pathlib.Path) -> str:
    """SHA-256 in hexadecimal digits of a file; of a model.json, that of it and the files that hold its arrays."""
    digest = hashlib.sha256()
    for part in (path, *(keras_files.shards(path) if path.suffix == ".json" else ())):
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_file(path: pathlib.Path) -> WeightsFile:
    """Reads all arrays of a file.

    Raises:
      InputError: the file is damaged or of another kind, or reading its kind needs a package that is not installed.
    """
    if path.suffix == ".json":
        return WeightsFile(*keras_files.read_tfjs(path))
    if path.suffix == ".h5":
        return WeightsFile(*keras_files.read_h5(path))
    tensors, stated = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_pickle(path), {})
    # `DataParallel` adds this prefix.
    return WeightsFile({key.removeprefix("module."): value for key, value in tensors.items()}, stated)


def _read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            stated = {key: printable(value) for key, value in (file.metadata() or {}).items() if key in STATED}
            return {key: file.get_tensor(key) for key in file.keys()}, stated  # noqa: SIM118
    # The library checks sizes and offsets; NumPy has not all of its types.
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged, or not a .safetensors file ({error}); fetch it again") from error


def _read_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: reading {path.suffix} files needs PyTorch; install torch, or convert the file where torch is "
            f"installed: safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'weights.safetensors')"
        ) from error
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < SAFE_TORCH:
        raise InputError(
            f"{path}: PyTorch {torch.__version__} may run code that is hidden in such a file, even with "
            f"weights_only=True (CVE-2025-32434); update torch to 2.6 or later, or use a .safetensors file"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        return {key: np.asarray(value.float()) for key, value in state.items()}
    except Exception as error:  # Unpickling damaged bytes may raise anything.
        raise InputError(
            f"{path}: PyTorch reads no state dict from it ({type(error).__name__}); use a file that "
            f"torch.save(net.state_dict(), path) wrote"
        ) from error


def declaration(path: pathlib.Path, **stated: str) -> str:
    """A command that writes a .safetensors file again with metadata that say what it is."""
    out = f"{path.stem}_declared.safetensors"
    code = f"save_file(load_file({str(path)!r}), {out!r}, {stated!r})"
    return f'python -c "from safetensors.numpy import load_file, save_file; {code}"'
