"""What the process of a task does besides measuring: it takes the GPU for itself, and prints lines of results."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
LOCK = "GPU_QUEUE_LOCK"
"""Environment variable with the path of the file that is locked; without it, every process has the GPU at once."""

# The library of this checkout, and not an installed one.
sys.path.insert(0, str(ROOT))
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def emit(**row: Any) -> None:
    """Prints a line of results."""
    print(json.dumps(row), flush=True)


class Gpu:
    """The right to time, and to compile what is tuned by timing, which one process of the queue has at a time.

    The queue counts the seconds between the lines that `take` and `leave` print towards a task's limit.

    Attributes:
      waited: seconds that `take` has waited.
    """

    def __init__(self):
        self.waited = 0.0
        self._file = None

    def take(self) -> None:
        """Waits for the GPU, unless this process has it already."""
        if self._file is None:
            began, path = time.perf_counter(), os.environ.get(LOCK)
            self._file = open(path or os.devnull, "w")  # noqa: SIM115  held until `leave`
            if path:
                fcntl.flock(self._file, fcntl.LOCK_EX)
            self.waited += time.perf_counter() - began
            emit(gpu="taken")

    def leave(self) -> None:
        """Gives the GPU back. A process that ends, or is killed, has left it too."""
        if self._file is not None:
            emit(gpu="left")
            # By name, because forked children have a copy of the open file.
            if os.environ.get(LOCK):
                fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()
            self._file = None


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """The GPU during a `with` block."""
    gpu = Gpu()
    gpu.take()
    try:
        yield
    finally:
        gpu.leave()
