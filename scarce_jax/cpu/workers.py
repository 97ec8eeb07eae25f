"""A parallel map over worker processes that keeps the order."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import cloudpickle

from scarce_jax.errors import InputError

# One thread per process, because the processes together use all cores.
_ENVIRONMENT = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
}

# The modules of this process are found there too, also those of a script's own folder.
_START = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from scarce_jax.cpu.workers import serve
serve()
"""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Workers:
    """Worker processes, which live as long as the `with` block.

    They are started, not forked, so that JAX's threads in this process do no harm, and each at its first task. They
    never import the main script of the caller. Each of them imports the module of the function that it calls, which
    must not load JAX.

    A worker reads its tasks from a pipe and ends when the pipe closes, so it ends with this process whatever ends that.
    It holds no semaphore or other resource that could outlive it. Ctrl-C and SIGTERM do not reach it, also not if they
    are sent to the whole process group: this process decides when it stops.

    Args:
      count: number of processes; with 0, functions are called in this process.

    Raises:
      ValueError: `count` is below 0.
    """

    def __init__(self, count: int):
        if count < 0:
            raise ValueError(f"expected 0 or more workers, got {count}")
        # Each thread has a process of its own, and waits for its results.
        self._threads = concurrent.futures.ThreadPoolExecutor(count, initializer=_block_signals) if count else None
        self._own = threading.local()
        self._lock = threading.Lock()
        self._ended = False
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._threads is None:
            return
        with self._lock:
            self._ended = True
        for process in self._processes:
            process.kill()
        # A thread that waits for a result finds the pipe closed.
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            _close(process)

    def map_ordered(
        self, function: Callable[[str, Any], Any], payloads: Iterable[tuple[str, Any]], ahead: int
    ) -> Iterator[tuple[str, Any]]:
        """Yields `(id, function(id, payload))` for each `(id, payload)`, in their order.

        Args:
          function: function of an id and a payload that can be pickled. Side effects stay in the process that calls it.
          payloads: pairs (id, payload). This process reads at most `ahead` of them beyond the pair that is yielded
            next.
          ahead: largest number of payloads in progress, at least 1. With fewer than workers some processes idle.

        Raises:
          InputError: `function` raised it.
          RuntimeError: `function` raised another exception, or its process died. The message has the id.
          ValueError: `ahead` is below 1.
        """
        if ahead < 1:
            raise ValueError(f"expected ahead >= 1, got {ahead}")
        if self._threads is None:
            return ((name, _told(function, name, payload)) for name, payload in payloads)
        return self._map_in_processes(function, payloads, ahead)

    def _map_in_processes(
        self, function: Callable[[str, Any], Any], payloads: Iterable[tuple[str, Any]], ahead: int
    ) -> Iterator[tuple[str, Any]]:
        pending: collections.deque = collections.deque()

        def take() -> tuple[str, Any]:
            name, future = pending.popleft()
            return name, future.result()

        try:
            for name, payload in payloads:
                if len(pending) == ahead:
                    yield take()
                pending.append((name, self._threads.submit(self._call, function, name, payload)))
            while pending:
                yield take()
        finally:
            for _, future in pending:
                future.cancel()

    def _call(self, function: Callable[[str, Any], Any], name: str, payload: Any) -> Any:
        """Calls the function in the process of this thread."""
        task = cloudpickle.dumps((function, name, payload))
        process = self._process()
        try:
            _send(process.stdin, task)
            answer = _receive(process.stdout)
        except (EOFError, OSError) as error:
            self._own.process = None
            _close(process)
            raise RuntimeError(
                f"a worker process died at {name!r} (exit status {process.returncode}); if memory ran out, use fewer "
                f"workers"
            ) from error
        kind, content, trace = pickle.loads(answer)
        if kind == "result":
            return content
        raise (InputError if kind == "input" else RuntimeError)(content) from _InWorker(trace)

    def _process(self) -> subprocess.Popen:
        process = getattr(self._own, "process", None)
        if process is None:
            with self._lock:
                if self._ended:
                    raise RuntimeError("the workers were ended")
                process = subprocess.Popen(
                    [sys.executable, "-c", _START],
                    env={**os.environ, **_ENVIRONMENT},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                self._processes.append(process)
            process.stdin.write(pickle.dumps(sys.path))
            self._own.process = process
        return process


class _InWorker(Exception):
    """The traceback of a worker's exception, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _block_signals() -> None:
    # The signal mask is inherited, so workers have it from their first moment on.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _close(process: subprocess.Popen) -> None:
    """Closes the pipes of a process that ends."""
    process.wait()
    process.stdout.close()
    # What is left in the buffer of a closed pipe cannot be written.
    with contextlib.suppress(OSError):
        process.stdin.close()


def _told(function: Callable[[str, Any], Any], name: str, payload: Any) -> Any:
    """Calls the function. An exception other than InputError becomes a RuntimeError with the id."""
    try:
        return function(name, payload)
    except InputError:
        raise
    except Exception as error:
        raise RuntimeError(f"{name!r}: {type(error).__name__}: {error}") from error


def serve() -> None:
    """The main program of a worker: carries out the tasks on standard input until that closes."""
    tasks, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a task prints must not come between the results.
    os.dup2(2, 1)
    arrived: collections.deque[bytes] = collections.deque()
    ready = threading.Semaphore(0)

    def read() -> None:
        # In a thread, so that a long task ends with the parent too.
        try:
            while True:
                arrived.append(_receive(tasks))
                ready.release()
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        ready.acquire()
        try:
            function, name, payload = pickle.loads(arrived.popleft())
            answer = cloudpickle.dumps(("result", _told(function, name, payload), None))
        except Exception as error:
            kind = "input" if isinstance(error, InputError) else "error"
            answer = pickle.dumps((kind, str(error), traceback.format_exc()))
        try:
            _send(results, answer)
        except OSError:
            os._exit(0)


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(len(message).to_bytes(8, "little"))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: io.BufferedReader) -> bytes:
    """Reads one message; raises EOFError if the pipe closed."""
    size = pipe.read(8)
    message = pipe.read(int.from_bytes(size, "little")) if len(size) == 8 else b""
    if not message:
        raise EOFError
    return message
