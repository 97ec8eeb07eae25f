"""One command at a time writes to a run folder.

The lock is a POSIX record lock (`fcntl.lockf`) on the file `.lock` in the folder. The kernel or the NFS server releases
it when its holder dies, also by SIGKILL, and no child process inherits it. The file says who holds it. It is deleted
when the command ends; a killed command leaves it behind, which does no harm.

Some file systems have no such locks, or keep them on each host apart. So the holder also touches the file every few
seconds, and a file of another host, or any file where there are no locks, counts as held while that goes on.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import pathlib
import shlex
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.files import ASIDE, is_dead
from scarce_jax.errors import InputError, printable

log = logging.getLogger("scarce_jax")

NAME = ".lock"
BEAT = 5.0
"""Seconds between two touches of a held file."""

PATIENCE = 4 * BEAT
"""Seconds after which the holder of a file that nobody touched is dead."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_HELD = {errno.EAGAIN, errno.EACCES}

_HERE: set[tuple[int, int]] = set()
"""Device and inode of the folders that this process holds: record locks exclude other processes alone."""


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a folder for the length of the block, and deletes what killed commands left in the folder.

    The folder is created; if the block leaves it empty, it is removed again. In a run of several processes process 0
    holds the lock, and all are told if another command has it.

    Raises:
      InputError: another command holds the lock, or the folder cannot be written.
    """
    lock = _Lock(folder)
    mesh_lib.on_primary("lock", lock.acquire)
    try:
        mesh_lib.on_primary("leftovers", clear, folder)
        yield
    finally:
        lock.release()


def clear(folder: pathlib.Path) -> None:
    """Deletes the files and folders directly in a folder that killed commands wrote aside. Hold its lock.

    A report is written without the lock, so its file is left while it may be at work.
    """
    for entry in os.scandir(folder) if folder.is_dir() else ():
        if not (entry.name.startswith(".") and entry.name.endswith(ASIDE)):
            continue
        with contextlib.suppress(OSError):
            if entry.name.startswith(".report.") and not is_dead(entry.stat(follow_symlinks=False)):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


class _Lock:
    """The lock of a folder, not held until it is acquired."""

    def __init__(self, folder: pathlib.Path):
        self._folder, self._path = folder, folder / NAME
        self._handle: int | None = None
        self._new: list[pathlib.Path] = []
        self._key: tuple[int, int] | None = None
        self._stopped = threading.Event()

    def acquire(self) -> None:
        """Takes the lock; raises InputError if another command has it, or the folder cannot be used."""
        try:
            str(self._folder.absolute()).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{printable(self._folder)}: the name is not UTF-8; choose another --workdir, or rename the folder"
            ) from error
        try:
            self._new = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
            status = self._folder.stat()
            key = (status.st_dev, status.st_ino)
            if key in _HERE:
                raise InputError(_in_use(self._folder, _myself()))
            _HERE.add(key)
            self._key = key
            while not self._try():
                pass
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, json.dumps(_myself()).encode(), 0)
        except OSError as error:
            self.release()
            raise InputError(
                f"{self._folder}: the run folder cannot be written ({error.strerror}); make room or choose another "
                f"--workdir"
            ) from error
        except BaseException:
            self.release()
            raise
        threading.Thread(target=self._beat, args=[self._handle], daemon=True).start()

    def release(self) -> None:
        """Gives the lock back, if it is held, and removes what `acquire` created, unless it is used."""
        self._stopped.set()
        _HERE.discard(self._key)
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                if _is(self._path, handle):
                    self._path.unlink()
            os.close(handle)
        for path in self._new:
            with contextlib.suppress(OSError):
                path.rmdir()

    def _try(self) -> bool:
        """Takes the lock; False if its file changed meanwhile. Raises InputError if another command holds it."""
        _check_plain(self._path)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        with contextlib.ExitStack() as undo:
            try:
                handle, created = os.open(self._path, flags | os.O_EXCL, 0o666), True
            except FileExistsError:
                handle, created = os.open(self._path, flags, 0o666), False
            undo.callback(os.close, handle)
            locks = self._lock(handle)
            if not created:
                # The last holder may have deleted the file, and a lock on a deleted file excludes nobody.
                if not _is(self._path, handle):
                    return False
                holder = _holder(handle)
                elsewhere = holder.get("host") not in (None, socket.gethostname())
                if (elsewhere or not locks) and self._is_touched(holder):
                    raise InputError(_in_use(self._folder, holder))
                if not locks:
                    self._discard(handle)
                    return False
                # Looking at the file has opened and closed it, which releases a record lock.
                if elsewhere and not (self._lock(handle) and _is(self._path, handle)):
                    return False
            undo.pop_all()
        self._handle = handle
        return True

    def _lock(self, handle: int) -> bool:
        """Takes the record lock; False if the file system has none. Raises InputError if another process holds it."""
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise InputError(_in_use(self._folder, _holder(handle))) from error
            if error.errno not in _NO_LOCKS:
                raise
            return False
        return True

    def _is_touched(self, holder: dict) -> bool:
        """Whether the file is touched or deleted within `PATIENCE` seconds."""
        log.info(
            "%s: waits up to %.0f s to see whether process %s on %s, whose lock is there, is alive",
            self._folder,
            PATIENCE,
            holder.get("pid", "?"),
            holder.get("host", "?"),
        )
        before, end = _touched(self._path), time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(BEAT / 5)
            if _touched(self._path) != before:
                return True
        return False

    def _discard(self, handle: int) -> None:
        """Deletes the file of a dead holder, unless another process was first and has made its own."""
        aside = self._path.with_name(f"{NAME}.{socket.gethostname()}.{os.getpid()}{ASIDE}")
        self._path.rename(aside)
        if not _is(aside, handle):
            os.link(aside, self._path)
        aside.unlink()

    def _beat(self, handle: int) -> None:
        while not self._stopped.wait(BEAT):
            with contextlib.suppress(OSError):
                if _is(self._path, handle):
                    os.utime(self._path, follow_symlinks=False)


def _myself() -> dict[str, str | int]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": shlex.join(sys.argv)[:1000],
    }


def _holder(handle: int) -> dict:
    """What the file says of its holder; {} before that is written."""
    try:
        content = json.loads(os.pread(handle, 1 << 16, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _in_use(folder: pathlib.Path, holder: dict) -> str:
    who = (
        f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}: {holder.get('command')}"
        if holder
        else "it has just started"
    )
    return (
        f"{folder}: another command is training in this folder ({who}); wait until it ends or end it, or choose "
        f"another --workdir"
    )


def _check_plain(path: pathlib.Path) -> None:
    """Raises InputError if a path is there and no file, or one with a second name elsewhere, which would be changed."""
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise InputError(f"{path}: a link, a folder or a pipe; expected the file of a lock, or nothing: remove it")


def _is(path: pathlib.Path, handle: int) -> bool:
    """Whether a path leads to an open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _touched(path: pathlib.Path) -> int | None:
    """When a file was touched, by the clock of its file system; None if it is gone."""
    try:
        # Network file systems may answer from a cache, but not when a file is opened.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(handle).st_mtime_ns
    finally:
        os.close(handle)
