"""A folder in which files wait until all of them can be moved to where they belong."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

_NAME, _LOCK = ".scarce-jax-", "lock"
"""Beginning of the folder's name, and the file in it that its process holds locked."""


@contextlib.contextmanager
def folder_aside(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder in `out` that is deleted at the end, and deletes those that killed processes left there.

    `out` and the folders above it are created; those that stay empty are removed at the end. A folder that a process
    uses has a file that it holds locked, which the kernel unlocks when the process dies.
    """
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for left in out.glob(f"{_NAME}*"):
            if not left.is_symlink() and (handle := _locked(left, wait=False)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(handle)
        handle = None
        while handle is None:
            # Another process may have deleted it before it was locked.
            aside = pathlib.Path(tempfile.mkdtemp(prefix=_NAME, dir=out))
            handle = _locked(aside, wait=True)
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            os.close(handle)
    finally:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _locked(folder: pathlib.Path, wait: bool) -> int | None:
    """Locks a folder's file; None if another process holds it, or the folder is gone."""
    path = folder / _LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        if wait:
            raise
        return None  # Another user's.
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        # Held; or the file system has no locks, and then nothing tells which folders are used.
        if not wait:
            os.close(handle)
            return None
    if path.exists() and os.path.samestat(os.fstat(handle), os.lstat(path)):
        return handle
    os.close(handle)
    return None
