"""Turns running out of device memory into one message with the flag to lower, where possible before it happens."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from scarce_jax.errors import InputError

EXHAUSTED = "RESOURCE_EXHAUSTED"
"""Part of the message of the error that XLA's allocators raise."""


@contextlib.contextmanager
def advice(*, what: str, batch: int, size: tuple[int, int] | None, lower: str, resumes: bool = True) -> Iterator[None]:
    """Raises InputError in place of an allocation failure on a device; any other error passes.

    If one `advice` is inside another, the message is the inner one's.

    Args:
      what: the stage or result that runs inside, such as "stage detailer" or "result semi".
      batch: its batch.
      size: (height, width) of its images; None for images at native size.
      lower: the flag to lower, such as "--detailer.batch".
      resumes: whether the same command continues from the finished stages.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if EXHAUSTED not in str(error):
            raise
        at = "the images' own size" if size is None else f"{size[0]} x {size[1]}"
        again = ", then run the same command again: finished stages are not done again" if resumes else ""
        raise InputError(f"{what}: out of device memory with batch {batch} at {at}; lower {lower}{again}") from error


def check(needed: float, what: str, lower: str, device: jax.Device) -> None:
    """Raises InputError if `needed` bytes are more than a device has.

    An accelerator's allocator refuses what it does not have, but on a CPU the system would end the process.

    Args:
      needed: bytes.
      what: what takes them, such as "a CRF on 4000 x 3000 pixels".
      lower: what to change, such as "make the image smaller".
      device: the device.
    """
    found = available(device)
    if needed > found:
        raise InputError(f"{what} takes about {needed / 2**30:.1f} GiB, and {found / 2**30:.1f} GiB are free; {lower}")


def available(device: jax.Device) -> int:
    """Bytes that a device can give: an accelerator's limit; of a host what is free now, as far as the system tells."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return limit
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return total
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), total)


def evaluation_flag(config: Mapping[str, Any], batch: int) -> str:
    """The flags of the stages whose evaluation batch is `batch`, such as "--segmenter.eval-batch".

    Args:
      config: a method's config as in config.json.
      batch: images per device.
    """
    stages = [name for name, stage in config.items() if isinstance(stage, Mapping) and stage.get("eval_batch") == batch]
    return " or ".join(f"--{name.replace('_', '-')}.eval-batch" for name in stages) or "the batch of its source"
