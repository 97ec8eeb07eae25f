"""Work on the host in other processes, in order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from scarce_jax.errors import InputError

# One thread a process: the processes already use every core.
_ENVIRONMENT = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
}


def map_ordered(
    function: Callable[[str, Any], Any], items: Iterable[tuple[str, Any]], workers: int, ahead: int
) -> Iterator[tuple[str, Any]]:
    """Yields `(id, function(id, payload))` for every item `(id, payload)`, in order.

    The processes start fresh (no fork, so JAX's threads in this one are safe), never import the caller's main
    script, and are kept for the next call. A process imports the module that `function` is of: that module
    must not load JAX.

    Args:
      function: picklable, without side effects that matter here.
      items: read in this process, at most `ahead` beyond the item that is yielded next.
      workers: number of processes; 0 calls the function here.
      ahead: items under way at once; below `workers` some processes idle.

    Raises:
      InputError: as `function` raised it.
      RuntimeError: anything else went wrong with an item, which the message names.
    """
    if workers < 0 or ahead < 1:
        raise ValueError(f"expected workers from 0 and ahead from 1, got {workers} and {ahead}")
    if workers == 0:
        return ((name, _call(function, name, payload)) for name, payload in items)
    return _map_in_processes(function, items, workers, ahead)


def _map_in_processes(
    function: Callable[[str, Any], Any], items: Iterable[tuple[str, Any]], workers: int, ahead: int
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
        for name, payload in items:
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
        # Named here, where the item is known, and of a type that survives the way back to the caller.
        raise RuntimeError(f"{name!r}: {type(error).__name__}: {error}") from error
