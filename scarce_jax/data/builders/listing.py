"""The list of a dataset's source files, kept with the prepared dataset: whether they changed since."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Sequence

from scarce_jax.data.image_files import walk
from scarce_jax.errors import InputError, some

LISTING = "source.json.gz"
"""File of a prepared dataset: relative path of each source file -> [bytes, time of change in ns, hash or null]."""

HASHED = 16 << 20
"""Bytes of the largest files that are hashed. Larger ones, such as archives, are compared by size and time alone."""

Listing = dict[str, tuple[int, int, str | None]]


def list_source(folder: pathlib.Path, flags: Sequence[str] = (), others: Sequence[pathlib.Path] = ()) -> Listing:
    """Lists all files below a folder, through links too, without hidden ones.

    Args:
      folder: the source folder.
      flags: how it was read; each is listed like a file, so that another one counts as a change.
      others: files and folders outside of it.

    Returns:
      Relative path -> (bytes, time of change in ns, hash of the content or None).

    Raises:
      InputError: a file cannot be read.
    """
    listing = dict.fromkeys(flags, (0, 0, None))
    for name, path, status in _walk_all(folder, others):
        listing[name] = status.st_size, status.st_mtime_ns, _hash(path, status)
    return listing


def write_listing(listing: Listing, folder: pathlib.Path) -> None:
    """Writes a listing into the folder of a dataset; equal listings give equal bytes."""
    (folder / LISTING).write_bytes(gzip.compress(json.dumps(listing, sort_keys=True).encode(), mtime=0))


def changes(
    source: pathlib.Path,
    directory: pathlib.Path,
    flags: Sequence[str] = (),
    others: Sequence[pathlib.Path] = (),
) -> str:
    """How the files of a source differ from those that a dataset was prepared from, in words.

    Args:
      source: the folder of the files now.
      directory: folder of the prepared dataset.
      flags, others: as for `list_source`.

    Returns:
      "" if they do not differ, or if the dataset keeps no list of them, as older ones do not.

    Raises:
      InputError: the list is damaged, or a file cannot be read.
    """
    path = directory / LISTING
    if not path.exists():
        return ""
    try:
        before = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            f"{path}: damaged ({error}), so what the dataset was prepared from is not known; prepare it with --again"
        ) from error
    changed, new, now = [], [flag for flag in flags if flag not in before], {*flags}
    for name, file, status in _walk_all(source, others):
        now.add(name)
        if name not in before:
            new.append(name)
        elif _differs(file, status, *before[name]):
            changed.append(name)
    missing = [name for name in before if name not in now]
    found = {"changed": changed, "new": new, "missing": missing}
    return "; ".join(f"{len(names):,} {what} ({some(names, 3)})" for what, names in found.items() if names)


def _differs(path: pathlib.Path, status: os.stat_result, size: int, time: int, digest: str | None) -> bool:
    if status.st_size != size:
        return True
    # A copy of the folder has other times and the same content.
    return status.st_mtime_ns != time and (digest is None or _hash(path, status) != digest)


def _hash(path: pathlib.Path, status: os.stat_result) -> str | None:
    if status.st_size > HASHED:
        return None
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); correct its permissions, or remove it") from error


def _walk_all(
    source: pathlib.Path, others: Sequence[pathlib.Path]
) -> Iterator[tuple[str, pathlib.Path, os.stat_result]]:
    yield from _walk(source)
    for other in others:
        if other.is_file():
            yield str(other.absolute()), other, other.stat()
        else:
            yield from ((str(path.absolute()), path, status) for _, path, status in _walk(other))


def _walk(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path, os.stat_result]]:
    """Yields (relative path, path, status) of the files below a folder."""
    for inside, names in walk(folder, is_left_out=lambda name: name.startswith(".")):
        for name in names:
            path = folder / inside / name
            if not name.startswith(".") and path.is_file():
                yield path.relative_to(folder).as_posix(), path, path.stat()
