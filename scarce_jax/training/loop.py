"""The training loop: evaluate, save, next batch, step; the same for every stage of every method."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from scarce_jax import mesh as mesh_lib
from scarce_jax.errors import InputError, Interrupted
from scarce_jax.recipe import Artifact, Eval, NetState, Train
from scarce_jax.training import state as state_lib
from scarce_jax.training.checkpoint import Checkpoints, load_net, replicated_like, save_nets
from scarce_jax.training.dispatch import at_once, dispatches
from scarce_jax.training.inputs import TrainInput
from scarce_jax.training.log import MetricsLog, Progress, write_json
from scarce_jax.training.session import Session
from scarce_jax.training.signals import StopSignal
from scarce_jax.training.step import make_step, step_keys

log = logging.getLogger("scarce_jax")


def train(
    session: Session,
    stage: Train,
    *,
    steps: int,
    inputs: Mapping[str, TrainInput],
    offset: int,
    stop: StopSignal,
) -> dict[str, Any]:
    """Trains one stage to its end, from its newest checkpoint if there is one, and saves its nets.

    Args:
      session: restores what the stage starts from, and measures.
      steps: optimizer steps of the stage; an `Eval` with patience may end it before.
      inputs: the stage's sources, opened.
      offset: training steps of the stages before it.
      stop: asked between two steps.

    Returns:
      For DONE: steps, the last metrics of every eval, compile seconds, and the step of the kept nets.

    Raises:
      Interrupted: SIGTERM or Ctrl-C; a checkpoint was saved.
      InputError: a loss is not finite, or the disk is full.
    """
    runtime, mesh, folder = session.runtime, session.mesh, session.run_dir / stage.name
    drawn_as = stage.keys_as or stage.name
    outside = session.outside(stage)
    for role, imported in outside.items():
        log.info("%s: %s starts from %s", stage.name, role, imported)
    state = state_lib.init_state(stage.nets, steps, session.seed, drawn_as, session.nets(stage), mesh, outside)
    checkpoints = Checkpoints(folder / "checkpoints")
    trained = sorted(role for role, net in stage.nets.items() if net.optim)
    start, state = _resume(stage.name, state, trained, checkpoints, mesh)

    every = (runtime.log_every, runtime.checkpoint_every, *(evaluation.every for evaluation in stage.evals))
    schedule = functools.partial(dispatches, start, steps, at_once(runtime, inputs, mesh), every)
    streams = {name: source.batches(start, steps, schedule()) for name, source in inputs.items()}
    step = _Step(stage, steps, inputs, mesh, step_keys(inputs, session.seed, drawn_as, mesh), session.consts(stage))
    progress = Progress(stage.name, start, steps, sum(source.size for source in inputs.values()))

    with contextlib.closing(MetricsLog(session.run_dir, stage.name, start, offset)) as metrics_log:
        measure = _Measurements(session, stage, folder / "best", metrics_log)
        metrics = _LateMetrics(stage.name, steps, runtime.log_every, checkpoints, progress, metrics_log)
        number, ended = start, False
        for first, count in itertools.chain(schedule(), [(steps, 0)]):
            number = first
            if number > start:
                due = [e for e in stage.evals if number == steps or (e.every and number % e.every == 0)]
                # Asking other processes waits for the device, so with several it is not done at every step.
                asking = number < steps and (jax.process_count() == 1 or number % runtime.log_every == 0)
                stopping = asking and stop.agreed()
                save = stopping or (number < steps and number % runtime.checkpoint_every == 0)
                if due or save or number == steps:
                    metrics.fetch(check=True)
                    progress.pause()
                    measure(due, number, state.nets)
                    ended = number == steps or measure.stalled(number)
                    if save and not ended:
                        checkpoints.save(number, _stored(state, trained))
                    progress.go_on()
                if stopping and not ended:
                    checkpoints.wait()
                    raise Interrupted(f"{stage.name}: interrupted at step {number}, which is saved")
            if ended or number == steps:
                break
            began = time.perf_counter()
            draws = {name: next(batches) for name, batches in streams.items()}
            progress.waited(time.perf_counter() - began)
            state, on_device = step(state, draws, count)
            metrics.fetch(check=False)
            metrics.pending = (number + count, on_device)
        if number < steps:
            log.info("%s: ends at step %d, %d before its last", stage.name, number, steps - number)
            measure([e for e in stage.evals if e.name not in measure.measured_at(number)], number, state.nets)
        checkpoints.wait()

    best = measure.best.step
    if best is None or best == number:
        averaged = state_lib.averaged({role: state.nets[role] for role in trained})
    else:
        shapes = {role: state_lib.abstract_net(stage.nets[role]) for role in trained}
        averaged = {role: load_net(measure.best.folder / str(best) / role, net, mesh) for role, net in shapes.items()}
    # A frozen net that no earlier stage of the run has left is stored too: the folder holds all that its results need.
    frozen = {
        role: state.nets[role]
        for role, net in stage.nets.items()
        if not net.optim and not isinstance(net.init_from, Artifact)
    }
    save_nets(folder / "nets", {**averaged, **frozen})
    return {
        "steps": number,
        "kept_step": number if best is None else best,
        "metrics": measure.results,
        "compile_seconds": round(step.compile_seconds, 2),
        **({"init_from": {role: imported.facts for role, imported in outside.items()}} if outside else {}),
    }


def _resume(
    stage: str, state: state_lib.State, trained: Sequence[str], checkpoints: Checkpoints, mesh: jax.sharding.Mesh
) -> tuple[int, state_lib.State]:
    """The step to start from and the state there, of the newest checkpoint or as it is."""
    checkpoint = checkpoints.load_newest(replicated_like(_stored(state, trained), mesh))
    if checkpoint is None:
        return 0, state
    start, stored = checkpoint
    log.info("%s: goes on from step %d", stage, start)
    return start, state.replace(step=stored["step"], nets={**state.nets, **stored["nets"]})


class _Step:
    """The stage's compiled programs, one for each number of steps that is dispatched at once."""

    def __init__(
        self,
        stage: Train,
        steps: int,
        inputs: Mapping[str, TrainInput],
        mesh: jax.sharding.Mesh,
        keys: Mapping[str, jax.Array],
        consts: Mapping[str, Any],
    ):
        self._make = functools.partial(make_step, stage, steps, inputs, mesh)
        self._keys, self._consts = keys, consts
        self._programs: dict[int, Callable] = {}
        self.compile_seconds = 0.0

    def __call__(self, state: state_lib.State, draws: Mapping, count: int) -> tuple[state_lib.State, dict]:
        if count in self._programs:
            # After tracing, which may move constants, a transfer that nobody asked for is a mistake.
            with jax.transfer_guard("disallow"):
                return self._programs[count](state, draws, self._keys, self._consts)
        began = time.perf_counter()
        self._programs[count] = self._make(count)
        state, metrics = self._programs[count](state, draws, self._keys, self._consts)
        jax.block_until_ready(metrics)
        self.compile_seconds += time.perf_counter() - began
        return state, metrics


@dataclasses.dataclass
class _LateMetrics:
    """Metrics of the last dispatched step, read after the next one is dispatched, so that the device never waits."""

    stage: str
    steps: int
    log_every: int
    checkpoints: Checkpoints
    progress: Progress
    log: MetricsLog
    pending: tuple[int, dict] | None = None

    def fetch(self, check: bool) -> None:
        """Reads them where they are due or `check`; raises InputError where one is not finite."""
        if self.pending is None:
            return
        (number, on_device), self.pending = self.pending, None
        due = number % self.log_every == 0 or number == self.steps
        if not (due or check):
            return
        values = {key: float(value) for key, value in jax.device_get(on_device).items()}
        _check_finite(self.stage, number, values, self.checkpoints)
        if due:
            timing = self.progress.report(number, sum(v for key, v in values.items() if key.endswith("/loss")))
            self.log.write(number, "train", {**values, **timing})


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


class _Measurements:
    """The stage's evals: their last results, their lines in the log, and the best nets where one decides."""

    def __init__(self, session: Session, stage: Train, best_folder: pathlib.Path, metrics_log: MetricsLog):
        self._session, self._stage, self._log = session, stage, metrics_log
        self._steps: dict[str, int] = {}
        self.results: dict[str, dict[str, float]] = {}
        self.best = _load_best(best_folder)

    def __call__(self, due: Sequence[Eval], number: int, nets: Mapping[str, NetState]) -> None:
        averaged = state_lib.averaged(nets)
        trained = {role: averaged[role] for role in nets if self._stage.nets[role].optim}
        for evaluation in due:
            figures = self._session.measure(evaluation, averaged)
            values = {key: figures[key] for key in evaluation.figures}
            self.results[evaluation.name], self._steps[evaluation.name] = values, number
            self._log.write(number, "eval", {"eval": evaluation.name, **values})
            shown = "  ".join(f"{key} {'-' if value is None else f'{value:.4f}'}" for key, value in values.items())
            split = evaluation.source.split
            log.info("%s  step %d  %s on %s: %s", self._stage.name, number, evaluation.name, split, shown)
            if evaluation.keep_best:
                self.best.consider(values[evaluation.keep_best], number, trained)

    def measured_at(self, number: int) -> set[str]:
        """Names of the evals whose last measurement was after step `number`."""
        return {name for name, step in self._steps.items() if step == number}

    def stalled(self, number: int) -> bool:
        """Whether an eval's patience is over: so many measurements were not better than the best one.

        It follows from the step of the best measurement alone, which a run that goes on after a kill finds again.
        """
        since = number - (self.best.step or 0)
        return any(e.patience is not None and since >= e.patience * e.every for e in self._stage.evals)


def _load_best(folder: pathlib.Path) -> Best:
    path = folder / "best.json"
    return Best(folder, **json.loads(path.read_text())) if path.exists() else Best(folder)


def _stored(state: state_lib.State, trained: Sequence[str]) -> dict[str, Any]:
    """What a mid-stage checkpoint holds: frozen nets are read again from the stage that made them."""
    return {"step": state.step, "nets": {role: state.nets[role] for role in trained}}


def _check_finite(stage: str, step: int, values: Mapping[str, float], checkpoints: Checkpoints) -> None:
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        checkpoints.wait()
        steps = checkpoints.steps()
        last = f"the checkpoint of step {steps[0]} is kept" if steps else "no checkpoint was due before it"
        raise InputError(
            f"stage {stage}: {bad} at step {step} is not finite ({last}); lower the learning rate or the momentum, or "
            f"add a warm-up, in --{stage}.optim"
        )
