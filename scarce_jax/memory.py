"""Turns running out of device memory into one message with the flag to lower."""

from __future__ import annotations

import contextlib
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


def evaluation_flag(config: Mapping[str, Any], batch: int) -> str:
    """The flags of the stages whose evaluation batch is `batch`, such as "--segmenter.eval-batch".

    Args:
      config: a method's config as in config.json.
      batch: images per device.
    """
    stages = [name for name, stage in config.items() if isinstance(stage, Mapping) and stage.get("eval_batch") == batch]
    return " or ".join(f"--{name.replace('_', '-')}.eval-batch" for name in stages) or "the batch of its source"
