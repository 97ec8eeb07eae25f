"""Settings of a training stage, and of one pass through a net, that hold for all layers while a step is traced."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from scarce_jax.errors import InputError

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


@dataclasses.dataclass
class _Drop:
    """What `dropping_features` asks for, and whether a net did it."""

    rate: float
    rows: int
    key: jax.Array
    done: bool = False


_DROP: contextvars.ContextVar[_Drop | None] = contextvars.ContextVar("drop", default=None)


@contextlib.contextmanager
def dropping_features(rate: float, rows: int, key: jax.Array) -> Iterator[None]:
    """Drops channels of a backbone's features where they enter the head of a net that is applied inside the context.

    It is the feature perturbation of UniMatch (Yang et al., CVPR 2023), whose rate is 0.5.

    Args:
      rate: probability, below 1, with which each channel of each image is set to 0. The others are divided by 1 - rate.
      rows: number of images, the last ones of the batch, to which it applies; 0 changes nothing.
      key: random key.

    Raises:
      InputError: the net does not call `entering_head`.
    """
    drop = _Drop(rate, rows, key)
    token = _DROP.set(drop if rows else None)
    try:
        yield
    finally:
        _DROP.reset(token)
    if rows and not drop.done:
        raise InputError(
            "feature_dropout: the net has no place where channels of its backbone can be dropped; set feature_dropout "
            "to 0, or call `models.tracing.entering_head` in the net where the head reads the backbone"
        )


def entering_head(levels: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
    """The features [B, h, w, C] of a backbone as the head reads them, by level: see `dropping_features`.

    Every net passes what its backbone returned through this function.
    """
    drop = _DROP.get()
    if drop is None:
        return levels
    drop.done = True

    def dropped(number: int, x: jax.Array) -> jax.Array:
        survives = jax.random.bernoulli(jax.random.fold_in(drop.key, number), 1 - drop.rate, (drop.rows, x.shape[-1]))
        factors = jnp.concatenate([jnp.ones((len(x) - drop.rows, x.shape[-1])), survives / (1 - drop.rate)])
        return x * factors[:, None, None].astype(x.dtype)

    return {name: dropped(number, x) for number, (name, x) in enumerate(levels.items())}
