"""Settings of a training stage that hold for all layers of its nets while a step is traced."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeVar

import flax.linen as nn
import jax

Module = TypeVar("Module", bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class Tracing:
    """Settings of a training stage that its nets need not know.

    Attributes:
      statistics_groups: number of equal, contiguous parts of a batch whose batch statistics are their own (ghost batch
        normalisation, Hoffer et al., 2017). If each part is on one device, no device waits for the statistics of
        others. Running averages are those of the parts' means and variances; the latter leave out how the means differ.
      remat: whether the backward pass computes each block again (residual or transformer blocks, groups of a VGG or of
        deconvolutions, units of a DSNet) in place of keeping its features in memory.
    """

    statistics_groups: int = 1
    remat: bool = False


_PLAIN = Tracing()
_SETTINGS = contextvars.ContextVar("settings", default=_PLAIN)


def current() -> Tracing:
    """The settings of the innermost context."""
    return _SETTINGS.get()


@contextlib.contextmanager
def tracing(settings: Tracing) -> Iterator[None]:
    """Applies the settings to the layers that are traced inside the context."""
    token = _SETTINGS.set(settings)
    try:
        yield
    finally:
        _SETTINGS.reset(token)


def block(module: Module, run: Callable[[Module, jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Applies `run(module, x)`, which is computed again in the backward pass where `tracing` says so."""
    return nn.remat(run)(module, x) if current().remat else run(module, x)
