"""SIGTERM and Ctrl-C, deferred until the run can stop without losing anything."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np

from scarce_jax import mesh as mesh_lib


class StopSignal:
    """Records SIGTERM and Ctrl-C, so that a run can stop between steps. A second signal acts at once."""

    def __init__(self):
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: object) -> None:
        self.received = True
        self._restore(number)
        # Not through sys.stderr, which this may have interrupted.
        os.write(2, b"scarce-jax: stops when what is under way is stored; the same signal again stops at once\n")

    def __exit__(self, *error: object) -> None:
        for number in self._before:
            self._restore(number)

    def _restore(self, number: int) -> None:
        # None is a handler that was not installed from Python (a cluster runtime's), which cannot be restored.
        before = self._before[number]
        signal.signal(number, signal.SIG_DFL if before is None else before)

    def agreed(self) -> bool:
        """Whether any process received a signal. Every process must call this, so that all stop at the same place."""
        return bool(mesh_lib.gather(np.int32(self.received)).any())
