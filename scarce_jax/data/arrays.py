"""Files of named arrays: npz archives with a checksum over all of them."""

from __future__ import annotations

import os
import pathlib
import zlib
from collections.abc import Mapping

import numpy as np

from scarce_jax.data.files import write_atomically

_CHECKSUM = "checksum"
"""Name of the array that holds the checksum."""


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, compressed and atomically; creates the file's folder.

    Raises:
      ValueError: an array holds Python objects.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    # An open file, because NumPy adds a suffix to a path.
    with write_atomically(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays, **{_CHECKSUM: np.uint32(_crc(arrays))})


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads all arrays that `write_arrays` wrote, by name.

    Raises:
      ValueError: the file is damaged, or not of this kind.
      OSError: the file is missing or cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError:
        raise
    except Exception as error:  # Damaged zip archives raise errors of many types.
        raise ValueError(f"{type(error).__name__}: {error}") from error
    stored = arrays.pop(_CHECKSUM, None)
    if stored is None or stored.shape != () or int(stored) != _crc(arrays):
        raise ValueError("its content does not match its checksum")
    return arrays


def _crc(arrays: Mapping[str, np.ndarray]) -> int:
    crc = 0
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype.str} {array.shape} ".encode(), crc)
        crc = zlib.crc32(array.tobytes(), crc)
    return crc
