"""A parallel map over worker processes that keeps the order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from scarce_jax.errors import InputError

# One thread per process, because the processes together use all cores.
_ENVIRONMENT = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
}


def map_ordered(
    function: Callable[[str, Any], Any], payloads: Iterable[tuple[str, Any]], workers: int, ahead: int
) -> Iterator[tuple[str, Any]]:
    """Yields `(id, function(id, payload))` for each `(id, payload)`, in their order.

    Worker processes are started, not forked, so that JAX's threads in this process do no harm. They never import the
    main script of the caller, and they stay alive for the next call. Each of them imports the module of `function`,
    which must not load JAX.

    Args:
      function: picklable function of an id and a payload. Side effects stay in the process that calls it.
      payloads: pairs (id, payload). This process reads at most `ahead` of them beyond the pair that is yielded next.
      workers: number of processes; 0 calls the function in this process.
      ahead: largest number of payloads in progress, at least 1. With fewer than `workers` some processes idle.

    Raises:
      InputError: `function` raised it.
      RuntimeError: `function` raised another exception, or its process died. The message has the id.
      ValueError: `workers` is below 0 or `ahead` below 1.
    """
    if workers < 0 or ahead < 1:
        raise ValueError(f"expected workers >= 0 and ahead >= 1, got {workers} and {ahead}")
    if workers == 0:
        return ((name, _call(function, name, payload)) for name, payload in payloads)
    return _map_in_processes(function, payloads, workers, ahead)


def _map_in_processes(
    function: Callable[[str, Any], Any], payloads: Iterable[tuple[str, Any]], workers: int, ahead: int
) -> Iterator[tuple[str, Any]]:
    from loky import get_reusable_executor
    from loky.process_executor import BrokenProcessPool

    executor = get_reusable_executor(max_workers=workers, timeout=60, env=_ENVIRONMENT)
    pending: collections.deque = collections.deque()

    def take() -> tuple[str, Any]:
        name, future = pending.popleft()
        try:
            return name, future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a worker process died while {name!r} was next ({str(error).splitlines()[0]}); if memory ran out, use "
                f"fewer workers"
            ) from error

    try:
        for name, payload in payloads:
            if len(pending) == ahead:
                yield take()
            pending.append((name, executor.submit(_call, function, name, payload)))
        while pending:
            yield take()
    finally:
        for _, future in pending:
            future.cancel()


def _call(function: Callable[[str, Any], Any], name: str, payload: Any) -> Any:
    """Calls the function. An exception other than InputError becomes a RuntimeError with the id."""
    try:
        return function(name, payload)
    except InputError:
        raise
    except Exception as error:
        # A RuntimeError can be pickled on its way back to the caller, and its message has the id.
        raise RuntimeError(f"{name!r}: {type(error).__name__}: {error}") from error
