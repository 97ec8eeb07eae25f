"""What a pass over data left, one entry per example id, in ArrayRecord files.

A part file holds up to `PART` entries: record 0 lists their ids, records 1, 2, ... are the entries in that
order. Ids stand apart from the entries so that a damaged entry can still be named.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import zlib
from collections.abc import Iterable, KeysView, Mapping, Sequence

import numpy as np

from scarce_jax.data.files import ASIDE, write_atomically
from scarce_jax.errors import InputError

PART = 64
"""Entries per file: what a restarted pass repeats at most."""

_NAME = "part-{:05d}.arrayrecord"
_NAME_PATTERN = re.compile(r"part-(\d{5,})\.arrayrecord")
_CRC_BYTES = 4


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name as bytes: a CRC-32 of the rest (little-endian), then an npz archive.

    Raises:
      ValueError: an array holds Python objects.
    """
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()})
    return _seal(archive.getvalue())


def decode(data: bytes) -> dict[str, np.ndarray]:
    """The arrays that `encode` was given.

    Raises:
      ValueError: the bytes are damaged.
    """
    with np.load(io.BytesIO(_unseal(data)), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _seal(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CRC_BYTES, "little") + data


def _unseal(data: bytes) -> bytes:
    stored, data = int.from_bytes(data[:_CRC_BYTES], "little"), data[_CRC_BYTES:]
    # Nothing has the checksum 0, so that zeros alone would pass.
    if not data or zlib.crc32(data) != stored:
        raise ValueError(f"checksum {zlib.crc32(data):08x}, expected {stored:08x}")
    return data


def write_part(
    folder: str | os.PathLike, index: int, entries: Sequence[tuple[str, Mapping[str, np.ndarray]]]
) -> pathlib.Path:
    """Writes part `index` of a folder's records; the file appears whole or not at all.

    Args:
      entries: (example id, arrays), at most `PART` of them.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    if not 0 < len(entries) <= PART:
        raise ValueError(f"a part holds 1 to {PART} entries, got {len(entries)}")
    path = pathlib.Path(folder) / _NAME.format(index)
    ids = [example_id for example_id, _ in entries]
    with write_atomically(path) as aside:
        # group_size 1: one entry is read without decompressing its neighbours.
        writer = ArrayRecordWriter(str(aside), "group_size:1")
        try:
            writer.write(_seal(json.dumps(ids).encode()))
            for _, arrays in entries:
                writer.write(encode(arrays))
        finally:
            writer.close()
    return path


def parts_done(folder: str | os.PathLike) -> set[int]:
    """Indices of the parts that are complete; what an interrupted write left in the folder is removed.

    Call it before anything writes to the folder.
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
    """Opens, reads one record, closes: threads share nothing, and thousands of parts keep no file open."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
    try:
        return reader.read([position])[0]
    finally:
        reader.close()


class Records:
    """The entries of a finished pass, by example id.

    Only the lists of ids are read at the start; an entry is read from its file when asked for. May be used
    from several threads and sent to other processes.

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
            for position, example_id in enumerate(self._part_ids(path), start=1):
                if example_id in self._where:
                    repeated[example_id] = repeated.get(example_id, 1) + 1
                self._where[example_id] = path, position
        if repeated:
            raise InputError(
                f"{self.folder}: {len(repeated)} ids occur more than once: "
                f"{_some(f'{i} ({n} times)' for i, n in repeated.items())}; {self._redo}"
            )

    def _part_ids(self, path: pathlib.Path) -> list[str]:
        try:
            return json.loads(_unseal(_read_record(path, 0)))
        # The reader raises RuntimeError, json and the checksum ValueError.
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise InputError(f"{path}: damaged, its list of ids cannot be read ({error}); {self._redo}") from error

    @property
    def ids(self) -> KeysView[str]:
        """The example ids, in the order of the parts; `in` is fast."""
        return self._where.keys()

    def __len__(self) -> int:
        return len(self._where)

    def read(self, example_id: str) -> dict[str, np.ndarray]:
        """The arrays of one example.

        Raises:
          InputError: there is no entry for this id, or it is damaged.
        """
        if example_id not in self._where:
            raise InputError(f"{self.folder}: no entry for {example_id!r} among {len(self._where)}; {self._redo}")
        path, position = self._where[example_id]
        try:
            return decode(_read_record(path, position))
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise InputError(f"{path}: the entry of {example_id!r} is damaged ({error}); {self._redo}") from error

    def check_complete(self, expected_ids: Iterable[str]) -> None:
        """Raises InputError unless there is exactly one entry for every expected id and no other."""
        expected = dict.fromkeys(expected_ids)
        missing = [example_id for example_id in expected if example_id not in self._where]
        extra = [example_id for example_id in self._where if example_id not in expected]
        faults = [
            f"{len(ids)} {what} ({_some(repr(i) for i in ids)})"
            for what, ids in (("missing", missing), ("not expected", extra))
            if ids
        ]
        if faults:
            raise InputError(
                f"{self.folder}: {len(expected)} entries expected, found {len(self._where)}: "
                f"{', '.join(faults)}; {self._redo}"
            )


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
