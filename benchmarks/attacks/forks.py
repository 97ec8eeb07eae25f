"""Commands in forked processes, which are killed at a chosen call of the file system or after a chosen time.

A fork costs milliseconds where a start of Python and an import of JAX cost seconds. It is safe only while this process
has one thread, which `forked` checks: a backend of JAX would have many.
"""

from __future__ import annotations

import atexit
import mmap
import os
import pathlib
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

CALLS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
"""Audit events of calls that change a folder; `open` to write and `os.fsync` are counted too."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

PATIENCE = 10.0
"""Seconds in which the processes that a command started should end after it."""

BROKEN = 70
"""Exit status of a child whose command let an exception through."""


class Blow(NamedTuple):
    """How a command is ended from outside; by default it is not.

    Attributes:
      call: the command kills itself before its call of this number, from 1, that changes a file.
      seconds: it is sent the signal so long after its start.
      signal: what is sent after `seconds`; SIGKILL goes to the process alone, another to its group as Ctrl-C does.
      after: text that must be in its output before the signal is sent.
    """

    call: int | None = None
    seconds: float | None = None
    signal: int = signal.SIGKILL
    after: str = ""


class Attempt(NamedTuple):
    """How a command ended.

    Attributes:
      status: exit status; -9 if it was killed.
      seconds: that it ran.
      calls: number of calls that changed files under the watched folder.
      text: its output and errors.
      left: processes that it started and that lived on for `PATIENCE` after it.
    """

    status: int
    seconds: float
    calls: int
    text: str
    left: int


def forked(child: Callable[[], int]) -> int:
    """Forks a process group that exits with the status which `child` returns; returns its id."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"{threads} threads in the process that forks, expected 1")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = BROKEN
    try:
        os.setsid()
        # A shell that starts a job in the background lets it ignore Ctrl-C, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        status = child()
        # What Python does at its end, such as stopping worker processes, without returning to the caller of the fork.
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def attempt(argv: Sequence[str], root: pathlib.Path, log: pathlib.Path, blow: Blow | None = None) -> Attempt:
    """Runs a command of `scarce_jax` in a child.

    Args:
      argv: the command.
      root: calls that change something outside this folder are not counted.
      log: file for what the command prints.
      blow: how it is ended; by default it ends by itself.
    """
    blow = blow or Blow()
    counter = mmap.mmap(-1, 8)

    def child() -> int:
        _redirect(log)
        sys.argv = ["scarce-jax", *argv]
        _watch(counter, os.fspath(root), blow.call)
        from scarce_jax.cli import main

        return main(list(argv))

    began = time.perf_counter()
    pid = forked(child)
    status = _wait(pid, began, log, blow)
    seconds = time.perf_counter() - began
    left = _end_group(pid, PATIENCE)
    calls = int.from_bytes(counter[:8], "little")
    return Attempt(status, seconds, calls, log.read_text(errors="replace"), left)


def in_child(function: Callable[..., Any], *values: Any) -> Any:
    """The result of a function that a child computes, so that only the child starts a backend."""
    reading, writing = os.pipe()

    def child() -> int:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(function(*values), pipe)
        return 0

    pid = forked(child)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    _, waited = os.waitpid(pid, 0)
    _end_group(pid, 0.0)
    if waited:
        raise RuntimeError(f"{function.__name__}{values}: the child ended with {os.waitstatus_to_exitcode(waited)}")
    return pickle.loads(content)


def _redirect(log: pathlib.Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _watch(counter: mmap.mmap, root: str, fatal: int | None) -> None:
    """Counts this process's calls that change files under `root`; it kills itself before number `fatal`."""

    def called() -> None:
        number = int.from_bytes(counter[:8], "little") + 1
        counter[:8] = number.to_bytes(8, "little")
        if number == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def inside(path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(root)

    def hook(event: str, values: tuple) -> None:
        if event == "open":
            path, _, flags = values
            if flags & WRITING and inside(path):
                called()
        # `shutil.rmtree` names files by an open folder.
        elif event in CALLS and (inside(values[0]) or values[-1] not in (-1, None)):
            called()

    def fsync(handle: int, before: Callable[[int], None] = os.fsync) -> None:
        called()
        before(handle)

    os.fsync = fsync
    sys.addaudithook(hook)


def _wait(pid: int, began: float, log: pathlib.Path, blow: Blow) -> int:
    """The exit status of the child, which is sent the signal of `blow` when it is due."""
    due = blow.seconds is not None
    while True:
        ended, waited = os.waitpid(pid, os.WNOHANG if due else 0)
        if ended:
            return os.waitstatus_to_exitcode(waited)
        if time.perf_counter() - began >= blow.seconds and blow.after in log.read_text(errors="replace"):
            (os.kill if blow.signal == signal.SIGKILL else os.killpg)(pid, blow.signal)
            due = False
        else:
            time.sleep(0.005)


def _members(group: int) -> list[int]:
    """The living processes of a group."""
    members = []
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, _, own_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(own_group) == group and state != "Z":
                members.append(int(folder.name))
    return members


def _end_group(group: int, patience: float) -> int:
    """Kills what is left of a group; returns how many lived on for `patience` seconds."""
    end = time.perf_counter() + patience
    while (members := _members(group)) and time.perf_counter() < end:
        time.sleep(0.05)
    for member in members:
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(members)
