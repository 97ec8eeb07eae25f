"""How a run is executed."""

from __future__ import annotations

import dataclasses
import os

from scarce_jax.ranges import Count, Workers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """How a run is executed. Nothing here changes what is computed, so none of it is part of a fingerprint.

    Attributes:
      checkpoint_every: steps between checkpoints within a stage.
      log_every: steps between lines in metrics.jsonl, in TensorBoard and on the terminal.
      workers: number of decoding threads, and of processes for the host work of an inferring stage.
      resident: keep decoded examples in device memory. None: if they fit.
      deterministic: ask XLA for deterministic GPU kernels, so that a resumed run is bit-identical on a GPU too.
      steps_per_dispatch: training steps per call of the compiled program, if all sources are resident; saves time for
        small nets on a GPU. Choose a divisor of `log_every` and `checkpoint_every`. Counts as 1 on a CPU. None: see
        `training.dispatch.at_once`.
    """

    checkpoint_every: Count = 500
    log_every: Count = 20
    workers: Workers = 2
    resident: bool | None = None
    deterministic: bool = False
    steps_per_dispatch: Count | None = None


def set_xla_flags(runtime: Runtime) -> None:
    """Sets XLA_FLAGS for deterministic kernels if `runtime` asks for them; call it before the first use of a device."""
    flag, flags = "--xla_gpu_deterministic_ops=true", os.environ.get("XLA_FLAGS", "")
    if runtime.deterministic and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
