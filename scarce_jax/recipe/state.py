"""Values that pass through the steps of a stage: the arrays of nets, and what a loss returns beside its value."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax

PyTree = Any


@flax.struct.dataclass
class NetState:
    """The arrays of a net. `batch_stats` is {} for a net without them, `opt_state` () for a frozen net."""

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree = ()

    @property
    def variables(self) -> dict[str, PyTree]:
        return {"params": self.params, "batch_stats": self.batch_stats}


@flax.struct.dataclass
class Out:
    """The auxiliary output of a loss.

    Attributes:
      metrics: name -> scalar, logged as `<net>/<name>`.
      batch_stats: net -> its new batch_stats.
      share: arrays that later turns of the same step may read, without gradients.
      weight: float32 scalar, the number of pixels (say) that the loss is a mean over. It weights the parts of a batch
        under gradient accumulation (`Train.accumulate`); None weights them equally.
    """

    metrics: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    batch_stats: dict[str, PyTree] = flax.struct.field(default_factory=dict)
    share: dict[str, PyTree] = flax.struct.field(default_factory=dict)
    weight: jax.Array | None = None
