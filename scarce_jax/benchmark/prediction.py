"""Times masks at native size."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from scarce_jax.benchmark.roofline import reached
from scarce_jax.benchmark.synthetic import abstract_consts, abstract_nets, row_spec
from scarce_jax.benchmark.timing import Measured, enough_memory, pace, rates
from scarce_jax.errors import InputError
from scarce_jax.evaluation.views import native_canvas
from scarce_jax.recipe import Eval
from scarce_jax.runs import predictor
from scarce_jax.training import state as state_lib

log = logging.getLogger("scarce_jax")

GROWTH = 1.02
"""A doubled batch must give this many times the images per second to count as faster."""

LARGEST_BATCH = 1024


class Prediction(Measured):
    """What `predict` and `evaluate` run, on random nets and one random image."""

    def record(self) -> dict[str, Any]:
        session, mesh = self.session, self.session.mesh
        result, item = self._result()
        nets = state_lib.init_state(item.nets, {}, session.seed, result, {}, mesh).nets
        # A session whose stages have left nothing has no constants of theirs.
        consts = self.consts(item)
        item = dataclasses.replace(item, consts=jax.device_get(consts))
        made = predictor(session, self.info, self.config, result, item, nets)
        height, width = native = self.native or self._native(item)
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        coarse = rng.integers(0, len(self.info.classes), (height, width), np.uint8) if made.needs_coarse else None
        row, canvas = made.row(image, coarse), native_canvas(height, width)

        table = []
        for batch in [1, *_doubling()] if self.batch is None else sorted({1, self.batch}):
            rows = {key: np.stack([value] * batch * mesh.size) for key, value in row.items()}
            try:
                with enough_memory(f"batch {batch}"):
                    began = time.perf_counter()
                    jax.block_until_ready(made.dispatch(rows, canvas))
                    first_call = round(time.perf_counter() - began, 3)
                    intervals = pace(lambda rows=rows: made.dispatch(rows, canvas), self.steps)
            except InputError:
                if self.batch is not None or not table:
                    raise
                log.info("benchmark: batch %d per device does not fit", batch)
                break
            timed = rates(intervals, batch * mesh.size, mesh.size)
            table.append({"batch": batch, "first_call_seconds": first_call, **timed})
            if self.batch is None and len(table) > 1 and not _grows(table):
                break
        latency = pace(lambda: made.predict(image, coarse), self.steps)
        best = max(table, key=lambda line: line["images_per_second"])
        done = {"flops": self._flops(item, best["batch"]), "bytes": None}
        seconds = best["batch"] / best["images_per_second_per_device"]
        return {
            "stage": next(iter(item.nets.values())).init_from.stage,
            "result": result,
            "native_size": native,
            "size": item.source.size,
            "parameters": sum(x.size for net in nets.values() for x in jax.tree.leaves(net.params)),
            "latency": {key: value for key, value in rates(latency, 1, 1).items() if key.endswith("_ms")},
            "best_batch": best["batch"],
            "global_batch": best["batch"] * mesh.size,
            **{key: value for key, value in best.items() if key not in ("batch", "first_call_seconds")},
            **done,
            **reached(done, seconds, mesh.devices.flat[0], self.config.dtype),
            "batches": table,
        }

    def _result(self) -> tuple[str, Eval]:
        if self.stage is not None:
            self.stage_called(self.stage)
        for name, item in self.recipe.results.items():
            stages = [net.init_from.stage for net in item.nets.values()]
            if item.predict is not None and (self.stage is None or self.stage in stages):
                return name, item
        raise InputError(f"stage {self.stage}: no result of this recipe predicts with a net of it")

    def _native(self, item: Eval) -> tuple[int, int]:
        source = item.source
        if self.prepared:
            return self.session.inputs.reader(source.dataset, source.split).read(0)["image"].shape[:2]
        if source.size is None:
            raise InputError("benchmark: masks are predicted at native size, which is not known; give --native H W")
        return source.size

    def _flops(self, item: Eval, batch: int) -> float:
        """Operations of the nets for a batch, without bringing the scores to native size."""
        native = self.native or self._native(item)
        spec = row_spec(item.source, self.recipe, self.info, native)
        rows = {name: jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for name, x in spec.items()}

        def scores(nets, rows, consts):
            batch = jax.vmap(lambda row: item.source.transform(row, jax.random.key(0), consts))(rows)
            return item.predict(nets, batch, consts)

        consts = abstract_consts(item, self.recipe, self.info)
        return jax.jit(scores).lower(abstract_nets(item.nets), rows, consts).cost_analysis().get("flops", 0.0)


def _doubling() -> Iterator[int]:
    batch = 2
    while batch <= LARGEST_BATCH:
        yield batch
        batch *= 2


def _grows(table: list[dict[str, Any]]) -> bool:
    last, before = (line["images_per_second"] for line in (table[-1], table[-2]))
    return last > GROWTH * before
