"""A parallel map over processes on the host that keeps the order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from scarce_jax.errors import InputError

# Each process has one thread, since the processes together use every core.
_ENVIRONMENT = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
}


def map_ordered(
    function: Callable[[str, Any], Any], payloads: Iterable[tuple[str, Any]], workers: int, ahead: int
) -> Iterator[tuple[str, Any]]:
    """Yields `(id, function(id, payload))` for every `(id, payload)`, in their order.

    The processes start fresh: they are not forked, so that JAX's threads in this process do no harm, and they never
    import the caller's main script. They stay alive for the next call. Each imports the module that defines
    `function`; that module must not load JAX.

    Args:
      function: picklable; its side effects stay in the process that calls it.
      payloads: pairs of an id and the function's second argument. This process reads them, at most `ahead` beyond the
        pair whose result is yielded next.
      workers: number of processes; 0 calls the function in this process.
      ahead: largest number of payloads in progress; below `workers` some processes idle.

    Raises:
      InputError: as `function` raised it.
      RuntimeError: `function` raised anything else, or its process died; the message names the id.
      ValueError: `workers` is below 0 or `ahead` below 1.
    """
    if workers < 0 or ahead < 1:
        raise ValueError(f"expected workers from 0 and ahead from 1, got {workers} and {ahead}")
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
                f"a worker process died while {name!r} was next ({str(error).splitlines()[0]}); "
                "if memory ran out, use fewer workers"
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
    try:
        return function(name, payload)
    except InputError:
        raise
    except Exception as error:
        # The id is known here, and a RuntimeError can be pickled on its way back to the caller.
        raise RuntimeError(f"{name!r}: {type(error).__name__}: {error}") from error
