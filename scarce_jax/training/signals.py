"""SIGTERM and Ctrl-C, held back until the run can stop without losing anything."""

from __future__ import annotations

import signal
import threading
from typing import Any

import jax
import numpy as np


class StopSignal:
    """Remembers SIGTERM and Ctrl-C, so that a run can stop between two steps. A second one is not held back."""

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

    def __exit__(self, *error: object) -> None:
        for number in self._before:
            self._restore(number)

    def _restore(self, number: int) -> None:
        # None: a handler that was not installed from Python, such as a cluster runtime's; it cannot be put back.
        before = self._before[number]
        signal.signal(number, signal.SIG_DFL if before is None else before)

    def agreed(self) -> bool:
        """Whether any process was asked to stop, so that all stop at the same place; every process must ask."""
        if jax.process_count() == 1:
            return self.received
        from jax.experimental import multihost_utils

        return bool(multihost_utils.process_allgather(np.int32(self.received)).any())
