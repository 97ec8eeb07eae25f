"""Images as the features of a backbone's frozen part, which need not be computed again in every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax import struct


@struct.dataclass
class Encoded:
    """Takes the place of images [B, H, W, 3] at the entrance of a net whose backbone is partly or wholly frozen.

    Attributes:
      levels: name of a level -> its features [B, h, w, C].
      unread: (name, shape, dtype) of the other frozen levels, which the rest of the net does not read.
      size: (H, W) of the images.
    """

    levels: dict[str, jax.Array]
    unread: tuple[tuple[str, tuple[int, ...], Any], ...] = struct.field(pytree_node=False, default=())
    size: tuple[int, int] = struct.field(pytree_node=False, default=(0, 0))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, W, 3), the shape of the images."""
        return (next(iter(self.levels.values())).shape[0], *self.size, 3)


class LevelIsRead(Exception):
    """A computation needs the values of a level that is not at hand."""

    def __init__(self, name: str):
        super().__init__(f"the level {name} is read, but it is not among those that were computed")
        self.name = name


class Unread:
    """A level of which only shape and dtype are known. Everything else that is asked of it raises LevelIsRead."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any):
        self.name, self.shape, self.dtype = name, shape, dtype

    def __getattr__(self, attribute: str) -> Any:
        raise LevelIsRead(self.name)

    def _read(self, *_: Any) -> Any:
        raise LevelIsRead(self.name)

    # Operators are not looked up as attributes.
    __getitem__ = __iter__ = __neg__ = __matmul__ = __rmatmul__ = __truediv__ = _read
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _read


def known_levels(image: jax.Array | Encoded, names: Sequence[str]) -> dict[str, Any]:
    """The levels that a backbone need not compute: none of an image.

    Args:
      names: names of the frozen levels, in the order of the computation.
    """
    if not isinstance(image, Encoded):
        return {}
    unread = {name: Unread(name, (image.shape[0], *shape), dtype) for name, shape, dtype in image.unread}
    return {name: {**image.levels, **unread}[name] for name in names}


def encode(module: nn.Module, image: jax.Array) -> dict[str, jax.Array]:
    """The frozen levels of the backbone of a net, for `module.apply(variables, image, method=encode)`."""
    levels = module.backbone(image, train=False)
    return {name: levels[name] for name in module.backbone.frozen_levels}


def levels_read(
    apply: Callable[[Encoded], Any], names: Sequence[str], levels: Mapping[str, Any], size: tuple[int, int]
) -> tuple[str, ...]:
    """Which frozen levels the rest of a net reads.

    Args:
      apply: the net as a function of `Encoded`, which is traced and not computed.
      names: names of the frozen levels, in the order of the computation.
      levels: name -> abstract features [B, h, w, C] of each.
      size: (H, W) of the images.
    """
    read = [names[-1]]
    while True:
        at_hand = {name: level for name, level in levels.items() if name in read}
        unread = tuple((name, x.shape[1:], x.dtype) for name, x in levels.items() if name not in read)
        try:
            jax.eval_shape(apply, Encoded(at_hand, unread, size))
        except LevelIsRead as error:
            read.append(error.name)
        else:
            return tuple(name for name in names if name in read)
