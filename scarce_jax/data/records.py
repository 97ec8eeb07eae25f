"""The output of a pass of inference: records, one entry per example id in ArrayRecord files, or a mean.

A part file holds up to `PART` entries: record 0 lists their ids, records 1, 2, ... are the entries in that
order. The ids are stored apart from the entries so that a message can name the id of a damaged entry.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import threading
import zlib
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence
from typing import Any

import numpy as np

from scarce_jax.data.arrays import read_arrays
from scarce_jax.data.files import ASIDE, as_os_error, write_atomically
from scarce_jax.errors import InputError, some

PART = 64
"""Entries per file. A restarted pass repeats at most one file."""

_NAME = "part-{:05d}.arrayrecord"
_NAME_PATTERN = re.compile(r"part-(\d{5,})\.arrayrecord")
_CRC_BYTES = 4

_PARSING = threading.Lock()
"""NumPy parses headers by `ast`, which in Python 3.11 fails at times in several threads (python/cpython#106905)."""


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Serialises arrays by name: a CRC-32 of the rest (4 bytes, little-endian), then an npz archive.

    Raises:
      ValueError: an array holds Python objects.
    """
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()})
    return _seal(archive.getvalue())


def decode(data: bytes) -> dict[str, np.ndarray]:
    """Inverts `encode`.

    Raises:
      ValueError: the bytes are damaged.
    """
    with _PARSING, np.load(io.BytesIO(_unseal(data)), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _seal(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CRC_BYTES, "little") + data


def _unseal(data: bytes) -> bytes:
    stored, data = int.from_bytes(data[:_CRC_BYTES], "little"), data[_CRC_BYTES:]
    # The checksum of nothing is 0, so a block of zeros would pass without the first check.
    if not data or zlib.crc32(data) != stored:
        raise ValueError(f"checksum {zlib.crc32(data):08x}, expected {stored:08x}")
    return data


def write_part(
    folder: str | os.PathLike, index: int, entries: Sequence[tuple[str, Mapping[str, np.ndarray]]]
) -> pathlib.Path:
    """Writes part `index` of a folder's records, atomically.

    Args:
      entries: (example id, arrays), at most `PART` of them.

    Raises:
      OSError: the file cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    if not 0 < len(entries) <= PART:
        raise ValueError(f"a part holds 1 to {PART} entries, got {len(entries)}")
    path = pathlib.Path(folder) / _NAME.format(index)
    ids = [example_id for example_id, _ in entries]
    with write_atomically(path) as aside:
        # group_size 1: one entry is read without decompressing its neighbours.
        try:
            writer = ArrayRecordWriter(str(aside), "group_size:1")
            try:
                writer.write(_seal(json.dumps(ids).encode()))
                for _, arrays in entries:
                    writer.write(encode(arrays))
            finally:
                writer.close()
        except RuntimeError as error:
            raise as_os_error(error) from error
    return path


def parts_done(folder: str | os.PathLike) -> set[int]:
    """Returns the indices of the complete parts, and deletes the files of interrupted writes.

    Nothing else may write to the folder meanwhile.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        return set()
    for path in folder.glob(f".part-*{ASIDE}"):
        path.unlink(missing_ok=True)
    return {index for index, _ in _parts(folder)}


def _parts(folder: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    matches = ((_NAME_PATTERN.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _read_record(path: pathlib.Path, position: int) -> bytes:
    """Reads one record. The file is closed again: threads share no reader, and there may be thousands of parts."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
    try:
        return reader.read([position])[0]
    finally:
        reader.close()


MEAN = "mean.npz"
"""Name of the file in a stage's folder."""


def load_means(run_dir: pathlib.Path, stage: str, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads fields of the mean that a stage stored.

    Raises:
      InputError: the file is missing or damaged, or has no such field.
    """
    path = run_dir / stage / MEAN
    try:
        means = read_arrays(path)
        return {name: means[name] for name in names}
    except KeyError as error:
        raise InputError(
            f"{path}: has {some(sorted(means))}, expected {error}; run again with --redo {stage}"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run again with --redo {stage}") from error


def load_mean(run_dir: pathlib.Path, stage: str, name: str) -> np.ndarray:
    """Reads one field as `load_means` does."""
    return load_means(run_dir, stage, [name])[name]


class Records:
    """Random access to the records of a finished pass by example id.

    Opening reads the ids alone. Instances may be shared by threads and sent to other processes.

    Args:
      folder: RUN/<stage>/records.

    Raises:
      InputError: the folder is missing, a file is damaged, or an id occurs more than once.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)
        self._redo = f"run again with --redo {self.folder.resolve().parent.name}"
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no records here; {self._redo}")
        self._where: dict[str, tuple[pathlib.Path, int]] = {}
        repeated: dict[str, int] = {}
        for _, path in _parts(self.folder):
            ids = self._record(path, 0, "the list of ids", lambda data: json.loads(_unseal(data)))
            for position, example_id in enumerate(ids, start=1):
                if example_id in self._where:
                    repeated[example_id] = repeated.get(example_id, 1) + 1
                self._where[example_id] = path, position
        if repeated:
            raise InputError(
                f"{self.folder}: {len(repeated)} ids occur more than once: "
                f"{some(f'{i} ({n} times)' for i, n in repeated.items())}; {self._redo}"
            )

    def _record(self, path: pathlib.Path, position: int, what: str, parse: Callable[[bytes], Any]) -> Any:
        try:
            return parse(_read_record(path, position))
        # The reader raises RuntimeError; JSON, the checksum and NumPy raise ValueError.
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise InputError(f"{path}: {what} is damaged ({error}); {self._redo}") from error

    @property
    def ids(self) -> KeysView[str]:
        """The example ids in the order of the parts, as a set-like view."""
        return self._where.keys()

    def __len__(self) -> int:
        return len(self._where)

    def read(self, example_id: str) -> dict[str, np.ndarray]:
        """Reads the arrays of one example, by field.

        Raises:
          InputError: there is no entry for this id, or it is damaged.
        """
        if example_id not in self._where:
            raise InputError(f"{self.folder}: no entry for {example_id!r} among {len(self._where)}; {self._redo}")
        path, position = self._where[example_id]
        return self._record(path, position, f"the entry of {example_id!r}", decode)

    def check_complete(self, expected_ids: Iterable[str]) -> None:
        """Raises InputError unless the ids are exactly the expected ones."""
        expected = dict.fromkeys(expected_ids)
        missing = [example_id for example_id in expected if example_id not in self._where]
        extra = [example_id for example_id in self._where if example_id not in expected]
        faults = [
            f"{len(ids)} {what} ({some(repr(i) for i in ids)})"
            for what, ids in (("missing", missing), ("not expected", extra))
            if ids
        ]
        if faults:
            raise InputError(
                f"{self.folder}: {len(expected)} entries expected, found {len(self._where)}: "
                f"{', '.join(faults)}; {self._redo}"
            )
