"""The training loop: evaluate, save, next batch, step; the same for every stage of every method."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from scarce_jax import mesh as mesh_lib
from scarce_jax.errors import InputError, Interrupted
from scarce_jax.recipe import Eval, NetState, Train
from scarce_jax.runtime import Runtime
from scarce_jax.training import state as state_lib
from scarce_jax.training.checkpoint import Checkpoints, load_net, replicated_like, save_nets
from scarce_jax.training.dispatch import at_once, dispatches
from scarce_jax.training.inputs import TrainInput
from scarce_jax.training.log import MetricsLog, Progress, write_json
from scarce_jax.training.signals import StopSignal
from scarce_jax.training.start import Taken
from scarce_jax.training.step import make_step, step_keys

log = logging.getLogger("scarce_jax")


@dataclasses.dataclass
class Best:
    """The best measurement so far of the evaluation that decides a stage's result."""

    folder: pathlib.Path
    metric: float = -math.inf
    step: int | None = None

    def consider(self, metric: float | None, step: int, nets: Mapping[str, NetState]) -> None:
        """Keeps the nets if they are better than all before; a metric that nothing was counted for is None."""
        if metric is None or metric <= self.metric:
            return
        save_nets(self.folder / str(step), nets)
        before, self.metric, self.step = self.step, metric, step
        if mesh_lib.is_primary():
            write_json(self.folder / "best.json", {"metric": metric, "step": step})
            if before not in (None, step):
                shutil.rmtree(self.folder / str(before), ignore_errors=True)


def train(
    stage: Train,
    *,
    steps: int,
    seed: int,
    inputs: Mapping[str, TrainInput],
    loaded: Mapping[str, NetState],
    outside: Mapping[str, Taken],
    consts: Mapping[str, Any],
    evaluate: Callable[[Eval, Mapping[str, NetState]], dict[str, float]],
    runtime: Runtime,
    mesh: jax.sharding.Mesh,
    run_dir: pathlib.Path,
    offset: int,
    stop: StopSignal,
) -> dict[str, Any]:
    """Trains one stage to its end, from its newest checkpoint if there is one, and saves its nets.

    Args:
      loaded: the nets that start from an earlier stage.
      outside: what nets take over from outside the run.
      consts: the stage's constants, replicated over the mesh.
      evaluate: measures one of the stage's evals.
      offset: training steps of the stages before it.
      stop: asked between two steps.

    Returns:
      For DONE: steps, the last metrics of every eval, compile seconds, and the step of the kept nets.

    Raises:
      Interrupted: SIGTERM or Ctrl-C; a checkpoint was saved.
      InputError: a loss is not finite, or the disk is full.
    """
    folder = run_dir / stage.name
    txs = state_lib.transformations(stage.nets, steps)
    drawn_as = stage.keys_as or stage.name
    for role, taken in outside.items():
        log.info("%s: %s starts from %s", stage.name, role, taken)
    state = state_lib.init_state(stage.nets, txs, seed, drawn_as, loaded, mesh, outside)
    checkpoints = Checkpoints(folder / "checkpoints")
    trained = sorted({turn.net for turn in stage.turns} | {role for role, net in stage.nets.items() if net.optim})
    found = checkpoints.load_newest(replicated_like(_stored(state, trained), mesh))
    start = 0
    if found is not None:
        start, stored = found
        state = state.replace(step=stored["step"], nets={**state.nets, **stored["nets"]})
        log.info("%s: goes on from step %d", stage.name, start)
    measure = _Measurements(stage, evaluate, folder / "best", MetricsLog(run_dir, stage.name, start, offset))
    images = sum(source.size for source in inputs.values())
    progress = Progress(stage.name, start, steps, images)

    every = (runtime.log_every, runtime.checkpoint_every, *(item.every for item in stage.evals))
    schedule = functools.partial(dispatches, start, steps, at_once(runtime, inputs, mesh), every)
    programs: dict[int, Callable] = {}
    keys = step_keys(inputs, seed, drawn_as, mesh)
    streams = {name: source.batches(start, steps, schedule()) for name, source in inputs.items()}
    pending: tuple[int, dict] | None = None
    compile_seconds = 0.0

    def fetch(check: bool) -> None:
        """Reads the metrics of the last dispatched step, where they are due or `check`; stops if not finite."""
        nonlocal pending
        if pending is None:
            return
        (number, on_device), pending = pending, None
        due = number % runtime.log_every == 0 or number == steps
        if not (due or check):
            return
        values = {key: float(value) for key, value in jax.device_get(on_device).items()}
        _check_finite(stage.name, number, values, checkpoints)
        if due:
            timing = progress.report(number, sum(v for key, v in values.items() if key.endswith("/loss")))
            measure.log.write(number, "train", {**values, **timing})

    try:
        for number, count in itertools.chain(schedule(), [(steps, 0)]):
            if number > start:
                due = [e for e in stage.evals if number == steps or (e.every and number % e.every == 0)]
                # Asking other processes waits for the device, so with several it is not done at every step.
                asking = number < steps and (jax.process_count() == 1 or number % runtime.log_every == 0)
                stopping = asking and stop.agreed()
                save = stopping or (number < steps and number % runtime.checkpoint_every == 0)
                if due or save or number == steps:
                    fetch(check=True)
                    progress.pause()
                    measure(due, number, state.nets)
                    if save:
                        checkpoints.save(number, _stored(state, trained))
                    progress.go_on()
                if stopping:
                    checkpoints.wait()
                    raise Interrupted(f"{stage.name}: interrupted at step {number}, which is saved")
            if number == steps:
                break
            began = time.perf_counter()
            draws = {name: next(batches) for name, batches in streams.items()}
            progress.waited(time.perf_counter() - began)
            compiling = count not in programs
            if compiling:
                programs[count] = make_step(stage, txs, inputs, mesh, count)
            # Tracing may move constants; after it, a transfer that nobody asked for is a mistake.
            with jax.transfer_guard("allow" if compiling else "disallow"):
                state, metrics = programs[count](state, draws, keys, consts)
            if compiling:
                jax.block_until_ready(metrics)
                compile_seconds += time.perf_counter() - began
            fetch(check=False)
            pending = (number + count, metrics)
        checkpoints.wait()
    finally:
        measure.log.close()

    nets = {role: state.nets[role] for role in trained}
    kept = measure.best.step
    if kept is not None and kept != steps:
        like = {role: NetState(params=net.params, stats=net.stats) for role, net in nets.items()}
        nets = {role: load_net(measure.best.folder / str(kept) / role, net, mesh) for role, net in like.items()}
    save_nets(folder / "nets", nets)
    return {
        "steps": steps,
        "kept_step": steps if kept is None else kept,
        "metrics": measure.results,
        "compile_seconds": round(compile_seconds, 2),
        **({"init_from": {role: taken.facts for role, taken in outside.items()}} if outside else {}),
    }


class _Measurements:
    """The stage's evals: their last results, their lines in the log, and the best nets where one decides."""

    def __init__(self, stage: Train, evaluate: Callable, best_folder: pathlib.Path, metrics_log: MetricsLog):
        self._stage, self._evaluate, self.log = stage, evaluate, metrics_log
        self.results: dict[str, dict[str, float]] = {}
        self.best = _load_best(best_folder)

    def __call__(self, due: list[Eval], number: int, nets: Mapping[str, NetState]) -> None:
        trained = {role: nets[role] for role in nets if self._stage.nets[role].optim}
        for item in due:
            values = self._evaluate(item, nets)
            self.results[item.name] = values
            self.log.write(number, "eval", {"eval": item.name, **values})
            shown = "  ".join(f"{key} {'-' if value is None else f'{value:.4f}'}" for key, value in values.items())
            log.info("%s  step %d  %s on %s: %s", self._stage.name, number, item.name, item.source.split, shown)
            if item.keep_best:
                self.best.consider(values[item.keep_best], number, trained)


def _load_best(folder: pathlib.Path) -> Best:
    path = folder / "best.json"
    return Best(folder, **json.loads(path.read_text())) if path.exists() else Best(folder)


def _stored(state: state_lib.State, trained: list[str]) -> dict[str, Any]:
    """What a mid-stage checkpoint holds: frozen nets are read again from the stage that made them."""
    return {"step": state.step, "nets": {role: state.nets[role] for role in trained}}


def _check_finite(stage: str, step: int, values: Mapping[str, float], checkpoints: Checkpoints) -> None:
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        checkpoints.wait()
        steps = checkpoints.steps()
        kept = f"the checkpoint of step {steps[0]} is kept" if steps else "no checkpoint was due before it"
        raise InputError(
            f"stage {stage}: {bad} at step {step} is not finite ({kept}); lower the learning rate or the momentum, or "
            f"add a warm-up, in --{stage}.optim"
        )
