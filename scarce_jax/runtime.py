"""How a run is carried out."""

from __future__ import annotations

import dataclasses

from scarce_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """How a run is carried out; none of it changes what is computed, so none of it is in a fingerprint.

    Attributes:
      checkpoint_every: steps between mid-stage checkpoints.
      log_every: steps between lines in metrics.jsonl, TensorBoard and on the terminal.
      workers: decoding threads, and processes for the host work of an `Infer` stage.
      resident: keep decoded examples in device memory. None: when they fit (see `data.source`).
      deterministic: ask XLA for deterministic GPU kernels, so that resuming is bit-identical there too.
      steps_per_dispatch: training steps that one program carries out, where all sources are resident and nothing is
        due between (a divisor of `log_every` and `checkpoint_every` suits); it saves time for small nets on a GPU.
        On a CPU it counts as 1.
    """

    checkpoint_every: int = 500
    log_every: int = 20
    workers: int = 2
    resident: bool | None = None
    deterministic: bool = False
    steps_per_dispatch: int = 1

    def __post_init__(self):
        for name in ("checkpoint_every", "log_every", "steps_per_dispatch"):
            if getattr(self, name) < 1:
                raise InputError(f"runtime.{name} is {getattr(self, name)}; expected at least 1")
