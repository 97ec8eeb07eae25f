"""Times a training stage's step."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import jax

from scarce_jax import mesh as mesh_lib
from scarce_jax.benchmark.roofline import reached, work
from scarce_jax.benchmark.synthetic import SyntheticRows, abstract_consts, abstract_nets, number_of_steps, row_spec
from scarce_jax.benchmark.timing import WARM_UP, Measured, enough_memory, loader_rate, pace, rates
from scarce_jax.dry_run import number_of_images
from scarce_jax.recipe import Train, reads
from scarce_jax.training import state as state_lib
from scarce_jax.training.dispatch import at_once, dispatches
from scarce_jax.training.inputs import TrainInput
from scarce_jax.training.run import draw
from scarce_jax.training.step import make_step, step_keys

log = logging.getLogger("scarce_jax")

SYNTHETIC_ROWS = 256
LOADER_RATIO = 1.3
"""Below this ratio of the loader's rate to the step's, a little noise makes the step wait."""


class Training(Measured):
    """The step that `training.loop` runs, on random nets."""

    def choose(self) -> None:
        """Settles the stage and its batch; raises InputError where they cannot be had."""
        known = [stage.name for stage in self.recipe.stages if isinstance(stage, Train)]
        stage = self.stage_called(self.stage or known[0])
        if self.batch is not None:
            given = {name: dataclasses.replace(s, batch=self.batch) for name, s in stage.sources.items()}
            stage = dataclasses.replace(stage, sources=given)
        for source in stage.sources.values():
            mesh_lib.check_batch(self.session.mesh, {stage.name: source.batch})
        self._stage = stage
        self._images = sum(source.batch for source in stage.sources.values())
        self._programs: dict[str, tuple[jax.stages.Compiled, dict[str, Any]]] = {}

    def record(self) -> dict[str, Any]:
        """The stage's keys of the record."""
        self.choose()
        stage, mesh = self._stage, self.session.mesh
        synthetic = {}
        with enough_memory(f"stage {stage.name} with batch {self._images}"):
            for name, source in stage.sources.items():
                count = number_of_images(source, self.recipe, self.config.budget, self.info) or SYNTHETIC_ROWS
                rows = SyntheticRows(source, self.recipe, self.info, min(max(count, source.batch), SYNTHETIC_ROWS))
                synthetic[name] = self._input(name, rows, resident=True)
            found, done = self._time(synthetic)
            real, reason = self.real()
        seconds = self._images / found["images_per_second"]
        return {
            "stage": stage.name,
            "global_batch": {name: source.batch for name, source in stage.sources.items()},
            "size": {name: source.size for name, source in stage.sources.items()},
            "crop": {name: self._crop(name) for name in stage.sources},
            "parameters": sum(
                x.size for net in abstract_nets(stage.nets).values() for x in jax.tree.leaves(net.params)
            ),
            **found,
            **done,
            **reached(done, seconds, mesh.devices.flat[0], self.config.dtype),
            "real": real,
            "real_missing": reason,
        }

    def _crop(self, name: str) -> tuple[int, int]:
        source = self._stage.sources[name]
        row = row_spec(source, self.recipe, self.info)
        consts = abstract_consts(self._stage, self.recipe, self.info)
        made = jax.eval_shape(lambda row, consts: source.transform(row, jax.random.key(0), consts), row, consts)
        return made["image"].shape[:2]

    def _input(self, name: str, rows: Any, resident: bool | None) -> TrainInput:
        session, source = self.session, self._stage.sources[name]
        drawn_as = f"{self._stage.keys_as or self._stage.name}/{name}"
        workers = session.runtime.workers
        return TrainInput(source, rows, session.seed, drawn_as, session.mesh, workers, resident)

    def _time(self, inputs: Mapping[str, TrainInput]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Times, and the work of one step; what has the shapes of an earlier call is not compiled again."""
        stage, session = self._stage, self.session
        drawn_as = stage.keys_as or stage.name
        txs = state_lib.transformations(stage.nets, number_of_steps(stage))
        state = state_lib.init_state(stage.nets, txs, session.seed, drawn_as, {}, session.mesh)
        keys, consts = step_keys(inputs, session.seed, drawn_as, session.mesh), self.consts(stage)
        count = at_once(session.runtime, inputs, session.mesh)
        # More batches than steps, so that a loader never runs dry and prefetches to the end.
        total = count * (WARM_UP + self.steps + 8)
        streams = {name: x.batches(0, total, dispatches(0, total, count, ())) for name, x in inputs.items()}
        draws = {name: next(batches) for name, batches in streams.items()}
        shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), draws)
        known = str(shapes)
        if known not in self._programs:
            began = time.perf_counter()
            program = make_step(stage, txs, inputs, session.mesh, count)
            lowered = program.lower(state, draws, keys, consts)
            middle = time.perf_counter()
            compiled = lowered.compile()
            timing = {
                "lower_seconds": round(middle - began, 3),
                "compile_seconds": round(time.perf_counter() - middle, 3),
            }
            done = work(lowered, compiled, session.mesh.size)
            if count > 1:
                # XLA's cost analysis counts the body of a loop once, or not, by backend.
                done |= {"flops": None, "flops_from": None, "bytes": None}
            self._programs[known] = compiled, {"steps_per_dispatch": count, **timing, **done}
        compiled, done = self._programs[known]
        waits: list[float] = []
        metrics: dict[str, jax.Array] = {}

        def step() -> Any:
            nonlocal state, draws, metrics
            state, metrics = compiled(state, draws, keys, consts)
            began = time.perf_counter()
            draws = {name: next(batches) for name, batches in streams.items()}
            waits.append(time.perf_counter() - began)
            return metrics

        intervals = pace(step, self.steps)
        share = sum(waits[-self.steps :]) / sum(intervals)
        timed = rates([seconds / count for seconds in intervals], self._images, session.mesh.size)
        last = {name: float(value) for name, value in jax.device_get(metrics).items() if name.endswith("/loss")}
        finite = all(math.isfinite(value) for value in last.values())
        if not finite:
            log.warning("benchmark: the loss after %d steps is not finite: %s", WARM_UP + self.steps + 1, last)
        return {**timed, "data_wait": round(min(share, 1.0), 4), "loss_is_finite": finite}, done

    def real(self) -> tuple[dict[str, Any] | None, str | None]:
        """The same on the dataset's own images, and how fast they come by themselves; or why it is left out."""
        stage, session = self._stage, self.session
        if not self.prepared:
            return None, f"dataset {self.config.dataset} is not prepared"
        # Nets are drawn here whatever they start from; only data of earlier stages is missing.
        read = reads(dataclasses.replace(stage, nets={}, consts={}))
        if read:
            return None, f"reads {read[0]}, which only a run has"
        measured = [item.source for item in self.recipe.results.values()]
        manifest = draw(self.config.budget, self.info.name, self.config.train_split, measured, session.inputs)
        opened = dataclasses.replace(session, manifest=manifest).inputs
        resident = session.runtime.resident
        inputs = {name: self._input(name, opened.open(s), resident) for name, s in stage.sources.items()}
        found, _ = self._time(inputs)
        rate = loader_rate([source.batches(0, 4 + self.steps + 8) for source in inputs.values()], self.steps)
        ratio = rate * self._images / found["images_per_second"]
        if ratio < LOADER_RATIO:
            log.warning(
                "benchmark: the loader gives %.1f images/s, %.2f times what the step takes (below %.1f it will wait); "
                "raise --runtime.workers (%d), or keep images on the device with --runtime.resident True",
                *(rate * self._images, ratio, LOADER_RATIO, session.runtime.workers),
            )
        found |= {"resident": {name: source.resident for name, source in inputs.items()}}
        found |= {"workers": session.runtime.workers}
        return {
            **found,
            "loader_images_per_second": round(rate * self._images, 2),
            "loader_to_step": round(ratio, 2),
        }, None
