"""The training loop: evaluate, save, load a batch, step."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.figures import share_of_classes
from scarce_jax.data.files import read_checked_json, write_checked_json
from scarce_jax.data.source import Rows
from scarce_jax.errors import InputError, Interrupted
from scarce_jax.recipe import Artifact, Eval, NetState, Train
from scarce_jax.training import cache
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import TrainInput, next_batches
from scarce_jax.training.checkpoint import Checkpoints, DamagedCheckpoint, load_net, replicated_like, save_nets
from scarce_jax.training.dispatch import at_once, dispatches
from scarce_jax.training.finite import Finite, not_finite
from scarce_jax.training.log import MetricsLog, Progress
from scarce_jax.training.packing import packed, unpacked
from scarce_jax.training.session import Session
from scarce_jax.training.signals import StopSignal
from scarce_jax.training.step import make_step, step_keys

log = logging.getLogger("scarce_jax")


def train(
    session: Session,
    stage: Train,
    *,
    rows: Mapping[str, Rows],
    steps: int,
    offset: int,
    stop: StopSignal,
) -> dict[str, Any]:
    """Trains one stage to its end, from its newest checkpoint if there is one, and saves its nets.

    Args:
      session: restores nets, and measures.
      stage: the stage.
      rows: the opened sources of the stage.
      steps: optimizer steps of the stage; an `Eval` with patience may end it earlier.
      offset: training steps of the stages before.
      stop: checked between steps.

    Returns:
      For DONE: number of steps, the last metrics of every eval, seconds of compilation, and the step of the stored
      nets.

    Raises:
      Interrupted: SIGTERM or Ctrl-C; a checkpoint was saved.
      InputError: a metric, a parameter or a statistic is not finite, or the disk is full.
    """
    runtime, mesh, folder = session.runtime, session.mesh, session.run_dir / stage.name
    drawn_as, seed = stage.drawn_as, session.seed
    inputs = open_inputs(session, stage, rows)
    outside = session.outside(stage)
    for role, imported in outside.items():
        log.info("%s: %s starts from %s", stage.name, role, imported)
    for role, net in stage.nets.items():
        if net.optim and net.init_from is None and getattr(getattr(net.module, "backbone", None), "frozen", 0):
            log.warning(
                "%s: %s starts from random values, which the frozen parts of its backbone keep; set init_from",
                *(stage.name, role),
            )
    state = state_lib.init_state(stage.nets, steps, seed, drawn_as, session.nets(stage), mesh, outside)
    for name in not_finite({role: state.nets[role] for role in outside}):
        raise InputError(f"stage {stage.name}: {name} is not finite where it starts from; choose another init_from")
    checkpoints = Checkpoints(folder / "checkpoints")
    trained = sorted(stage.optimizers)
    start, content = checkpoints.load_newest(replicated_like(stored(state, trained), mesh)) or (0, None)
    if content is not None:
        log.info("%s: goes on from step %d", stage.name, start)
        state = restored(state, content)
    consts = session.consts(stage)
    cache.fill(stage, inputs, state.nets, mesh, consts)
    state = packed(state, stage.optimizers, mesh)

    every = (runtime.log_every, runtime.checkpoint_every, *(evaluation.every for evaluation in stage.evals))
    together = at_once(runtime, inputs, mesh, state.nets, (start, steps, *every))
    schedule = functools.partial(dispatches, start, steps, together, every)
    streams = {name: source.batches(start, steps, schedule()) for name, source in inputs.items()}
    step = _Step(stage, steps, inputs, mesh, step_keys(inputs, seed, drawn_as, mesh), consts)
    progress = Progress(stage.name, start, steps, sum(source.size for source in inputs.values()))

    with contextlib.closing(MetricsLog(session.run_dir, stage.name, start, offset)) as metrics_log:
        measure = _Measurements(session, stage, folder / "best", metrics_log)
        finite = Finite(folder, stage.name, checkpoints, inputs, seed, drawn_as, start)
        metrics = _LateMetrics(finite, steps, runtime.log_every, progress, metrics_log)
        number, ended = start, False
        for first, count in itertools.chain(schedule(), [(steps, 0)]):
            number = first
            if number > start:
                due = [e for e in stage.evals if number == steps or (e.every and number % e.every == 0)]
                # With several processes, asking waits for the device, so it is not done at every step.
                asking = number < steps and (jax.process_count() == 1 or number % runtime.log_every == 0)
                stopping = asking and stop.agreed()
                save = stopping or (number < steps and number % runtime.checkpoint_every == 0)
                if due or save or number == steps:
                    metrics.fetch(check=True)
                    finite.check_nets(number, {role: state.nets[role] for role in trained})
                    with progress.paused():
                        measure(due, number, state.nets)
                        ended = number == steps or measure.stalled(number)
                        if save and not ended:
                            checkpoints.save(number, unpacked(stored(state, trained), mesh))
                if stopping and not ended:
                    checkpoints.wait()
                    raise Interrupted(f"{stage.name}: interrupted at step {number}, which is saved")
            if ended or number == steps:
                break
            draws, waited = next_batches(streams, inputs)
            progress.waited(waited)
            state, on_device = step(state, draws, count)
            metrics.fetch(check=False)
            metrics.pending = (number + count, on_device)
        if number < steps:
            log.info("%s: ends at step %d, %d before its last", stage.name, number, steps - number)
            measure(stage.evals, number, state.nets)
        checkpoints.wait()

    best = measure.best.step
    if best is None or best == number:
        averaged = unpacked(state_lib.averaged({role: state.nets[role] for role in trained}), mesh)
    else:
        shapes = {role: state_lib.abstract_net(stage.nets[role]) for role in trained}
        try:
            averaged = {r: load_net(measure.best.folder / str(best) / r, net, mesh) for r, net in shapes.items()}
        except DamagedCheckpoint as error:
            raise InputError(f"{error}; train it again with --redo {stage.name}") from error
    # Frozen nets that no earlier stage stored are stored too, because the run folder must be self-contained.
    frozen = {
        role: state.nets[role]
        for role, net in stage.nets.items()
        if not net.optim and not isinstance(net.init_from, Artifact)
    }
    finite.check_nets(number, {**averaged, **frozen})
    save_nets(folder / "nets", {**averaged, **frozen})
    return {
        "steps": number,
        "kept_step": number if best is None else best,
        "metrics": measure.results,
        "compile_seconds": round(step.compile_seconds, 2),
        **({"init_from": {role: imported.facts for role, imported in outside.items()}} if outside else {}),
    }


class _Step:
    """The compiled programs of a stage, one for each number of steps per dispatch."""

    def __init__(
        self,
        stage: Train,
        steps: int,
        inputs: Mapping[str, TrainInput],
        mesh: jax.sharding.Mesh,
        keys: Mapping[str, jax.Array],
        consts: Mapping[str, Any],
    ):
        self._stage, self._make = stage.name, functools.partial(make_step, stage, steps, inputs, mesh)
        self._keys, self._consts = keys, consts
        self._programs: dict[int, Callable] = {}
        self.compile_seconds = 0.0

    def __call__(self, state: state_lib.TrainState, draws: Mapping, count: int) -> tuple[state_lib.TrainState, dict]:
        if count in self._programs:
            # Tracing may transfer constants; later calls must not transfer anything implicitly.
            with jax.transfer_guard("disallow"):
                return self._programs[count](state, draws, self._keys, self._consts)
        log.info("%s: compiling %s", self._stage, "the step" if count == 1 else f"{count} steps in one program")
        began = time.perf_counter()
        self._programs[count] = self._make(count)
        state, metrics = self._programs[count](state, draws, self._keys, self._consts)
        jax.block_until_ready(metrics)
        self.compile_seconds += time.perf_counter() - began
        return state, metrics


@dataclasses.dataclass
class _LateMetrics:
    """Metrics of the last dispatched step. They are read after the next dispatch, so that the device never waits."""

    finite: Finite
    steps: int
    log_every: int
    progress: Progress
    log: MetricsLog
    pending: tuple[int, dict] | None = None

    def fetch(self, check: bool) -> None:
        """Reads the metrics if they are due or `check`; raises InputError if one is not finite."""
        if self.pending is None:
            return
        (number, on_device), self.pending = self.pending, None
        due = number % self.log_every == 0 or number == self.steps
        if not (due or check):
            return
        values = {key: float(value) for key, value in jax.device_get(on_device).items()}
        self.finite.check_metrics(number, values)
        if due:
            timing = self.progress.report(number, sum(v for key, v in values.items() if key.endswith("/loss")))
            self.log.write(number, "train", {**values, **timing})


@dataclasses.dataclass
class Best:
    """The best measurement so far of the `Eval` with `keep_best`, and its nets on disk."""

    folder: pathlib.Path
    metric: float = -math.inf
    step: int | None = None

    @classmethod
    def load(cls, folder: pathlib.Path) -> Best:
        """Restores the best measurement of an interrupted run, if there is one."""
        path = folder / "best.json"
        remedy = f"run the train command again with --redo {folder.parent.name}"
        return cls(folder, **read_checked_json(path, dict[str, Any], remedy)) if path.exists() else cls(folder)

    def consider(self, metric: float | None, step: int, nets: Mapping[str, NetState]) -> None:
        """Stores the nets if their metric is the best so far; None, a metric without a value, never is."""
        if metric is None or metric <= self.metric:
            return
        save_nets(self.folder / str(step), nets)
        before, self.metric, self.step = self.step, metric, step
        if mesh_lib.is_primary():
            write_checked_json(self.folder / "best.json", {"metric": metric, "step": step})
            if before not in (None, step):
                shutil.rmtree(self.folder / str(before), ignore_errors=True)


class _Measurements:
    """Measures the evals of a stage: keeps their last results and the best nets, and writes their lines of the log."""

    def __init__(self, session: Session, stage: Train, best_folder: pathlib.Path, metrics_log: MetricsLog):
        self._session, self._stage, self._log = session, stage, metrics_log
        self._steps: dict[str, int] = {}
        self.results: dict[str, dict[str, float]] = {}
        self.best = Best.load(best_folder)

    def __call__(self, due: Sequence[Eval], number: int, nets: Mapping[str, NetState]) -> None:
        if all(self._steps.get(evaluation.name) == number for evaluation in due):
            return
        averaged = unpacked(state_lib.averaged(nets), self._session.mesh)
        trained = {role: averaged[role] for role in nets if self._stage.nets[role].optim}
        for evaluation in due:
            if self._steps.get(evaluation.name) == number:
                continue
            figures = self._session.measure(evaluation, averaged)
            values = {key: figures[key] for key in evaluation.figures}
            self.results[evaluation.name], self._steps[evaluation.name] = values, number
            self._log.write(number, "eval", {"eval": evaluation.name, **values})
            shown = "  ".join(f"{key} {'-' if value is None else f'{value:.4f}'}" for key, value in values.items())
            split = evaluation.source.split
            if evaluation.metrics == "masks" and (share := share_of_classes(figures["per_class"])):
                shown += f"  (over {share})"
            log.info("%s  step %d  %s on %s: %s", self._stage.name, number, evaluation.name, split, shown)
            if evaluation.keep_best:
                self.best.consider(values[evaluation.keep_best], number, trained)

    def stalled(self, number: int) -> bool:
        """Whether the patience of an eval is exhausted.

        This depends on the step of the best measurement alone, so that it survives an interruption.
        """
        since = number - (self.best.step or 0)
        return any(e.patience is not None and since >= e.patience * e.every for e in self._stage.evals)


def open_inputs(session: Session, stage: Train, rows: Mapping[str, Rows]) -> dict[str, TrainInput]:
    """Makes the inputs of a stage from its opened sources."""
    workers, resident = session.runtime.workers, session.runtime.resident
    return {
        name: TrainInput(source, rows[name], session.seed, f"{stage.drawn_as}/{name}", session.mesh, workers, resident)
        for name, source in stage.sources.items()
    }


def stored(state: state_lib.TrainState, trained: Sequence[str]) -> dict[str, Any]:
    """The content of a checkpoint; frozen nets are loaded from the stage that trained them."""
    return {"step": state.step, "nets": {role: state.nets[role] for role in trained}}


def restored(state: state_lib.TrainState, content: Mapping[str, Any]) -> state_lib.TrainState:
    """The state with the content of a checkpoint."""
    return state.replace(step=content["step"], nets={**state.nets, **content["nets"]})
