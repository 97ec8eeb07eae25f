"""Searches the largest batch whose program fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TRIES = 6
"""Most programs that the search for the largest batch compiles."""


def search(peak: Callable[[int], int], known: dict[int, int], unit: int, limit: int) -> dict[str, Any]:
    """The largest batch whose program needs at most `limit` bytes.

    Memory is nearly affine in the batch, so that two programs predict the largest batch; it is compiled too, and the
    prediction corrected, until the next larger batch is known not to fit or `TRIES` programs are compiled.

    Args:
      peak: batch -> bytes of its program.
      known: batch -> bytes, of at least one batch.
      unit: a batch is a multiple of it.

    Returns:
      "batch", null if even `unit` does not fit; "exact", whether the next larger one was compiled and does not fit;
      "peaks", the bytes of every batch that was compiled.
    """
    known = dict(known)
    (first,) = known
    second = unit * max(1, first // unit // 2)
    if second == first:
        second = 2 * unit
    known[second] = peak(second)
    while len(known) < TRIES + 1:
        fitting = max((batch for batch, needed in known.items() if needed <= limit), default=0)
        above = min((batch for batch, needed in known.items() if needed > limit), default=None)
        if above is not None and above - fitting <= unit:
            break
        (low, low_bytes), (high, high_bytes) = sorted(known.items(), key=lambda item: abs(item[1] - limit))[:2]
        slope = (high_bytes - low_bytes) / (high - low)
        guess = int(low + (limit - low_bytes) / slope) if slope > 0 else 2 * max(low, high)
        guess = max(fitting + unit, guess // unit * unit)
        guess = guess if above is None else min(guess, above - unit)
        known[guess] = peak(guess)
    fitting = max((batch for batch, needed in known.items() if needed <= limit), default=0)
    above = known.get(fitting + unit)
    return {
        "batch": fitting or None,
        "exact": above is not None and above > limit,
        "limit_bytes": limit,
        "peaks": {str(batch): known[batch] for batch in sorted(known)},
    }
