"""Times the training loop's own work on the host: everything but the device's.

    python benchmarks/host_time.py [CONFIG:STAGE ...] [--steps N] [--together N ...] [--profile] [--out FILE]

The real loop trains the stage's real nets on resident random rows, with a program in place of the step that takes and
returns the same arrays and computes nothing. Images are 16 x 16, so that picking a batch is no work either. What is
left is what the host does for a dispatch, but for starting the kernels of the step, which takes a GPU's driver time.
The device waits for it wherever its own work is shorter. "thread" is the processor time of the loop's thread alone,
which other work on the machine disturbs less.
"""

from __future__ import annotations

import cProfile
import dataclasses
import pathlib
import pstats
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from common import ROOT, append, arguments

STAGES = ["auxiliary_camvid:segmenter", "detailer_cityscapes:detailer"]
ROWS = 184
WARM_UP = 50


def small(stage: Any) -> Any:
    """The stage with small images, without measurements, and with nets that start from random values."""
    sources = {name: dataclasses.replace(source, size=(16, 16)) for name, source in stage.sources.items()}
    nets = {role: dataclasses.replace(net, init_from=None) for role, net in stage.nets.items()}
    return dataclasses.replace(stage, sources=sources, nets=nets, evals=(), consts={})


def idle_step(starts: list[tuple[float, float]]) -> Callable:
    """A stand-in for `make_step`, whose programs note when they are called."""
    import jax
    import jax.numpy as jnp

    from scarce_jax import mesh as mesh_lib

    def make_step(stage: Any, steps: int, inputs: Any, mesh: Any, count: int = 1) -> Callable:
        def step(state: Any, draws: Any, keys: Any, consts: Any) -> tuple[Any, dict]:
            # The barrier keeps the arrays from being handed back without a call of the program.
            state, used = jax.lax.optimization_barrier((state, draws))
            zero = 0.0 * sum(jnp.sum(draw["row"]) for draw in used.values())
            return state, {f"{turn.net}/{name}": zero for turn in stage.turns for name in ("loss", "grad_norm")}

        sharding = mesh_lib.replicated(mesh)
        program = jax.jit(step, donate_argnums=0, out_shardings=(sharding, sharding))

        def called(*args: Any) -> Any:
            starts.append((time.perf_counter(), time.thread_time()))
            return program(*args)

        return called

    return make_step


def measure(name: str, steps: int, together: int, profile: bool) -> dict[str, Any]:
    """Trains one stage, and returns its line."""
    import jax
    import numpy as np

    from scarce_jax import mesh as mesh_lib
    from scarce_jax.cli.common import load_config
    from scarce_jax.dry_run import known_recipe
    from scarce_jax.provenance import environment
    from scarce_jax.runtime import Runtime
    from scarce_jax.synthetic import SyntheticRows
    from scarce_jax.training import dispatch, loop
    from scarce_jax.training.session import Session
    from scarce_jax.training.signals import StopSignal

    config_name, stage_name = name.split(":")
    config = load_config(ROOT / "configs" / f"{config_name}.py")
    info, recipe = known_recipe(config, None)
    stage = small(recipe.stage(stage_name))
    mesh = mesh_lib.make_mesh(jax.devices()[:1])
    runtime = Runtime(steps_per_dispatch=together, checkpoint_every=10**9, resident=True)
    rows = {key: SyntheticRows(source, recipe, info, ROWS) for key, source in stage.sources.items()}
    starts: list[tuple[float, float]] = []
    profiler = cProfile.Profile()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(loop, "make_step", idle_step(starts)),
        mock.patch.object(dispatch, "scan_is_slow", lambda mesh: False),
    ):
        session = Session(recipe, info.classes, pathlib.Path(folder), None, mesh, runtime, 0)
        if profile:
            profiler.enable()
        loop.train(session, stage, rows=rows, steps=together * (WARM_UP + steps), offset=0, stop=StopSignal())
        profiler.disable()
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    elapsed, busy = 1e3 * np.diff(starts, axis=0)[WARM_UP:].T
    return {
        "stage": name,
        "steps_per_dispatch": together,
        "dispatches": len(elapsed),
        "median_ms": round(float(np.median(elapsed)), 3),
        "p90_ms": round(float(np.percentile(elapsed, 90)), 3),
        "median_thread_ms": round(float(np.median(busy)), 3),
        "mean_thread_ms": round(float(np.mean(busy)), 3),
        **environment(),
    }


def main() -> None:
    parser = arguments(__doc__, "host_time.jsonl")
    parser.add_argument("stages", nargs="*", default=STAGES, metavar="CONFIG:STAGE")
    parser.add_argument("--steps", type=int, default=600, help="dispatches to time")
    parser.add_argument("--together", type=int, nargs="+", default=[1], help="steps in one dispatch")
    parser.add_argument("--profile", action="store_true", help="print where the time goes; the profile slows it down")
    options = parser.parse_args()
    import jax

    jax.config.update("jax_platforms", "cpu")
    for name in options.stages:
        for together in options.together:
            append(options.out, measure(name, options.steps, together, options.profile))


if __name__ == "__main__":
    main()
