"""Stops a stage before anything that is not finite is saved, and leaves what `training.replay` needs."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization, traverse_util

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.files import write_checked_json
from scarce_jax.errors import InputError, some
from scarce_jax.recipe import NetState
from scarce_jax.training.batches import TrainInput
from scarce_jax.training.checkpoint import Checkpoints
from scarce_jax.training.packing import is_packed, unpack

FOLDER = "not_finite"
"""Folder in that of the stage, with `REPORT`."""

REPORT = "report.json"
"""What was not finite after which step, the state before it and its step, the seed and the keys of the random numbers,
and the ids of the examples, in the order of the rows, of the steps since all was known to be finite."""

_MOST_STEPS = 100
"""Steps whose examples the report lists."""


def not_finite(nets: Mapping[str, NetState]) -> list[str]:
    """Names the parameters and batch statistics, packed or not, that have a value which is not finite.

    Packed nets are reduced on their devices: that is one kernel for each of a few buffers.

    Returns:
      "role/params/path" and "role/batch_stats/path", in the order of the nets.
    """
    variables = {role: net.variables for role, net in nets.items()}
    if all(is_packed(net.params) for net in nets.values()) and bool(_all_finite(jax.tree.leaves(variables))):
        return []
    on_host = unpack(jax.tree.map(np.asarray, variables))
    flat = traverse_util.flatten_dict(serialization.to_state_dict(on_host), sep="/")
    return [path for path, array in flat.items() if _is_float(array) and not np.isfinite(array).all()]


@jax.jit
def _all_finite(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.isfinite(x).all() for x in arrays if _is_float(x)] or [jnp.array(True)]).all()


def _is_float(array: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(array), jnp.inexact)


@dataclasses.dataclass
class Finite:
    """Looks at metrics and nets of a stage in training.

    Attributes:
      folder: folder of the stage.
      stage: its name.
      checkpoints: its checkpoints.
      inputs: its opened sources.
      seed: seed of the run.
      drawn_as: the name that the stage's random keys depend on.
      known: number of steps after which all was finite.
    """

    folder: pathlib.Path
    stage: str
    checkpoints: Checkpoints
    inputs: Mapping[str, TrainInput]
    seed: int
    drawn_as: str
    known: int

    def check_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Raises InputError if a metric of a step is not finite."""
        bad = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
        if bad:
            shown = ", ".join(f"{name} {value}" for name, value in bad.items())
            self._stop(step, bad, f"{shown} at step {step} is not finite")

    def check_nets(self, step: int, nets: Mapping[str, NetState]) -> None:
        """Raises InputError if a parameter or statistic after `step` steps is not finite."""
        bad = not_finite(nets)
        if bad:
            what = f"{len(bad)} arrays of the net ({some(bad, 2)}) are not finite after step {step}"
            self._stop(step, dict.fromkeys(bad, "not finite"), what)
        self.known = step

    def _stop(self, step: int, bad: Mapping[str, str], what: str) -> NoReturn:
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        first = max(self.known, steps[0] if steps else 0, step - _MOST_STEPS)
        report = {
            "stage": self.stage,
            "step": step,
            "not_finite": dict(bad),
            "starts_from": steps[0] if steps else 0,
            "state": f"checkpoints/{steps[0]}" if steps else "initial values",
            "seed": self.seed,
            "drawn_as": self.drawn_as,
            "keys": {name: jax.random.key_data(source.key).tolist() for name, source in self.inputs.items()},
            "examples": {
                str(number + 1): {name: source.ids(number) for name, source in self.inputs.items()}
                for number in range(first, step)
            },
        }
        mesh_lib.on_primary(f"not finite {self.stage}", write_checked_json, self.folder / FOLDER / REPORT, report)
        last = f"the checkpoint of step {steps[0]} is kept" if steps else "there is no checkpoint yet"
        replay = shlex.join(["scarce-jax", "replay", str(self.folder.parent)])
        raise InputError(
            f"stage {self.stage}: {what} ({last}); lower the learning rate or the momentum, or add a warm-up, in the "
            f"optim of this stage; `{replay}` shows which images and layers began it"
        )
