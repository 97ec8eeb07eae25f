"""Host work that says where it ran; of a module that does not load JAX."""

import dataclasses
import os
import pathlib
import sys

import numpy as np


@dataclasses.dataclass(frozen=True)
class Grow:
    """The mask at twice its size, and the process; fails on the example that the file `fault` names."""

    fault: str

    def __call__(self, name, fields):
        fault = pathlib.Path(self.fault)
        if fault.exists() and fault.read_text() == name:
            raise OSError("power cut")
        return {
            "mask": fields["mask"].repeat(2, 0).repeat(2, 1),
            "sum": fields["sum"],
            "name": np.array(name),
            "process": np.array(os.getpid()),
            "jax": np.array("jax" in sys.modules),
        }
