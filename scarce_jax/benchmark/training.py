"""Times the step of a training stage, on random rows and on the dataset's images."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import jax

from scarce_jax import memory
from scarce_jax.benchmark.roofline import reached, work
from scarce_jax.benchmark.timing import WARM_UP, loader_rate, pace, rates
from scarce_jax.data.budget import Budget
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.recipe import Source, Train, reads
from scarce_jax.synthetic import SyntheticRows, abstract_nets, number_of_steps, ones_for_artifacts
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import TrainInput, next_batches
from scarce_jax.training.dispatch import at_once, dispatches
from scarce_jax.training.packing import packed
from scarce_jax.training.run import draw
from scarce_jax.training.session import Session
from scarce_jax.training.step import make_step, step_keys

log = logging.getLogger("scarce_jax")

SYNTHETIC_ROWS = 64
LOADER_RATIO = 1.3
"""Below this ratio of the loader's rate to the step's, small variations make the step wait for data."""


def time_training(
    session: Session, info: DatasetInfo, stage: Train, steps: int, dtype: str, dataset: tuple[Budget, str] | str
) -> dict[str, Any]:
    """Times a stage, and returns the keys of its record that are special to training.

    Args:
      steps: number of measured steps.
      dtype: compute dtype, which decides the device's limit.
      dataset: the budget and the training split; or the reason why the dataset's own images cannot be timed.
    """
    images = sum(source.batch for source in stage.sources.values())
    size = next(iter(stage.sources.values())).size
    with memory.advice(what=f"stage {stage.name}", batch=images, size=size, lower="--batch", resumes=False):
        rows = {
            name: SyntheticRows(source, session.recipe, info, max(source.batch, SYNTHETIC_ROWS))
            for name, source in stage.sources.items()
        }
        inputs = {name: train_input(session, stage, name, rows[name], resident=True) for name in rows}
        step = CompiledStep(session, info, stage)
        times = step.time(inputs, steps)
        # The nets are random whatever they would start from, so that only data of earlier stages is missing.
        artifacts = reads(dataclasses.replace(stage, nets={}, consts={}))
        missing = dataset if isinstance(dataset, str) else None
        if missing is None and artifacts:
            missing = f"reads {artifacts[0]}, which only a run has"
        real = None if missing else time_real_images(session, info, stage, step, steps, *dataset)
    return {
        "stage": stage.name,
        "global_batch": {name: source.batch for name, source in stage.sources.items()},
        "size": {name: source.size for name, source in stage.sources.items()},
        "crop": {name: crop(source, rows[name].spec, step.consts) for name, source in stage.sources.items()},
        "parameters": sum(x.size for net in abstract_nets(stage.nets).values() for x in jax.tree.leaves(net.params)),
        **times,
        **step.work,
        **reached(step.work, images / times["images_per_second"], session.mesh.devices.flat[0], dtype),
        "real": real,
        "real_missing": missing,
    }


def train_input(session: Session, stage: Train, name: str, rows: Any, resident: bool | None) -> TrainInput:
    """The input of a source as the training loop opens it, but for a `Cache`: the step is timed on images."""
    drawn_as = f"{stage.keys_as or stage.name}/{name}"
    source, workers = dataclasses.replace(stage.sources[name], cache=None), session.runtime.workers
    return TrainInput(source, rows, session.seed, drawn_as, session.mesh, workers, resident)


def crop(source: Source, row: Mapping[str, jax.ShapeDtypeStruct], consts: Mapping[str, Any]) -> tuple[int, ...]:
    """(height, width) of an image after the source's transform."""
    transformed = jax.eval_shape(lambda row, consts: source.transform(row, jax.random.key(0), consts), row, consts)
    return transformed["image"].shape[:2]


class CompiledStep:
    """A stage's step with random nets; compiled for the first inputs, and again only for inputs of other shapes."""

    def __init__(self, session: Session, info: DatasetInfo, stage: Train):
        self.session, self.stage = session, stage
        self.consts = ones_for_artifacts(stage, session.recipe, info, session.mesh)
        self.shapes: Any = None
        self.work: dict[str, Any] = {}

    def time(self, inputs: Mapping[str, TrainInput], steps: int) -> dict[str, Any]:
        """Rates over `steps` steps, the share of the time spent waiting for batches, and whether the loss is finite."""
        stage, session = self.stage, self.session
        drawn_as = stage.keys_as or stage.name
        length = number_of_steps(stage)
        state = state_lib.init_state(stage.nets, length, session.seed, drawn_as, {}, session.mesh)
        state = packed(state, stage.optimizers, session.mesh)
        keys = step_keys(inputs, session.seed, drawn_as, session.mesh)
        stops = (session.runtime.log_every, session.runtime.checkpoint_every)
        count = at_once(session.runtime, inputs, session.mesh, state.nets, stops)
        # More batches than steps, so that the loader still prefetches during the last step.
        total = count * (WARM_UP + steps + 8)
        streams = {name: x.batches(0, total, dispatches(0, total, count, ())) for name, x in inputs.items()}
        draws, _ = next_batches(streams, inputs)
        shapes = str(jax.tree.map(lambda x: (x.shape, str(x.dtype)), draws))
        if shapes != self.shapes:
            began = time.perf_counter()
            lowered = make_step(stage, length, inputs, session.mesh, count).lower(state, draws, keys, self.consts)
            middle = time.perf_counter()
            self.program, self.shapes = lowered.compile(), shapes
            program_work = work(lowered, self.program, session.mesh.size)
            if count > 1:
                # Backends differ in how XLA's cost analysis counts the body of a loop.
                program_work |= {"flops": None, "flops_from": None, "bytes": None}
            self.work = self.work or {
                "steps_per_dispatch": count,
                "lower_seconds": round(middle - began, 3),
                "compile_seconds": round(time.perf_counter() - middle, 3),
                **program_work,
            }
        waits: list[float] = []
        metrics: dict[str, jax.Array] = {}

        def step() -> Any:
            nonlocal state, draws, metrics
            state, metrics = self.program(state, draws, keys, self.consts)
            draws, waited = next_batches(streams, inputs)
            waits.append(waited)
            return metrics

        intervals = pace(step, steps)
        share = sum(waits[-steps:]) / sum(intervals)
        losses = {name: float(x) for name, x in jax.device_get(metrics).items() if name.endswith("/loss")}
        finite = all(map(math.isfinite, losses.values()))
        if not finite:
            log.warning("benchmark: the loss after %d steps is not finite: %s", WARM_UP + steps + 1, losses)
        images = sum(source.batch for source in stage.sources.values())
        return {
            **rates([seconds / count for seconds in intervals], images, session.mesh.size),
            "data_wait": round(min(share, 1.0), 4),
            "loss_is_finite": finite,
        }


def time_real_images(
    session: Session, info: DatasetInfo, stage: Train, step: CompiledStep, steps: int, budget: Budget, split: str
) -> dict[str, Any]:
    """Times the same step on the dataset's own images, and their loader without a step."""
    measured = [result.source for result in session.recipe.results.values()]
    manifest = draw(budget, info.name, split, measured, session.inputs)
    opened = dataclasses.replace(session, manifest=manifest).inputs
    resident = session.runtime.resident
    inputs = {
        name: train_input(session, stage, name, opened.open(source), resident) for name, source in stage.sources.items()
    }
    times = step.time(inputs, steps)
    images = sum(source.batch for source in stage.sources.values())
    loader = images * loader_rate([source.batches(0, 4 + steps + 8) for source in inputs.values()], steps)
    return {
        **times,
        "resident": {name: source.resident for name, source in inputs.items()},
        "workers": session.runtime.workers,
        **loader_share(loader, times["images_per_second"], session.runtime.workers),
    }


def loader_share(loader: float, step: float, workers: int) -> dict[str, float]:
    """The loader's images/s and its ratio to the step's; warns below `LOADER_RATIO`."""
    ratio = loader / step
    if ratio < LOADER_RATIO:
        log.warning(
            "benchmark: the loader gives %.1f images/s, %.2f times the step's rate; below %.1f the step will wait; "
            "raise --runtime.workers (%d), or keep the images on the device with --runtime.resident True",
            *(loader, ratio, LOADER_RATIO, workers),
        )
    return {"loader_images_per_second": round(loader, 2), "loader_to_step": round(ratio, 2)}
