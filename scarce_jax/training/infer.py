"""The `Infer` stage: a jitted prediction per batch, host work in worker processes, and records or a mean to store."""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax import mesh as mesh_lib
from scarce_jax.cpu.workers import Workers
from scarce_jax.data.arrays import write_arrays
from scarce_jax.data.records import MEAN, PART, Records, parts_done, write_part
from scarce_jax.data.source import Row, Rows
from scarce_jax.errors import InputError, Interrupted
from scarce_jax.evaluation import batching
from scarce_jax.evaluation.views import mirror, scale_rows, view_rows
from scarce_jax.recipe import Infer, Mean, Views
from scarce_jax.training.session import Session
from scarce_jax.training.signals import StopSignal

log = logging.getLogger("scarce_jax")

Entries = list[tuple[str, dict[str, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class ViewRows:
    """Rows of images in several views, each image decoded once: `k/image` and so on for each scale k."""

    rows: Rows
    views: Views

    def __getitem__(self, k: int) -> Row:
        example = self.rows.example(k)
        return view_rows(self.views, self.rows.size, self.rows.size, functools.partial(self.rows.sized, example))


def predict_rows(stage: Infer, nets: Any, rows: Any, consts: Any) -> dict[str, jax.Array]:
    """Predicts the fields [B, ...] of rows, which are those of the source, or of `ViewRows` if views are not plain."""

    def transformed(rows):
        key = jax.random.key(0)
        return jax.vmap(lambda row: stage.source.transform(row, key, consts))(rows)

    if stage.views.plain:
        prediction = stage.predict(nets, transformed(rows), consts)
        return prediction if stage.combine is None else stage.combine([prediction], [False])
    predictions, mirrored = [], []
    for k in range(len(stage.views.scales)):
        batch = transformed(scale_rows(rows, k))
        for flipped in (False, True) if stage.views.flip else (False,):
            view = {key: mirror(value, batch["width"]) for key, value in batch.items()} if flipped else batch
            predictions.append(stage.predict(nets, view, consts))
            mirrored.append(flipped)
    return stage.combine(predictions, mirrored)


def compile_predict(stage: Infer, mesh: Mesh) -> Callable:
    """Returns the jitted `predict_rows`, `(nets, rows, consts) -> {field: [B, ...]}`; each device has its own rows."""
    specs = (P(), P(mesh_lib.AXIS), P())
    local = functools.partial(predict_rows, stage)
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(mesh_lib.AXIS)))


def infer(session: Session, stage: Infer, rows: Rows, stop: StopSignal) -> dict[str, Any]:
    """Runs the stage and writes `records/` or `mean.npz`; keeps the complete parts of an interrupted pass.

    Returns:
      For DONE: the number of examples, how many of them were inferred by this call, and how many have which status.

    Raises:
      Interrupted: SIGTERM or Ctrl-C; the parts that are complete are kept.
      InputError: a mean is not finite.
    """
    mesh, batch = session.mesh, stage.source.batch
    predict = compile_predict(stage, mesh)
    nets, consts = session.nets(stage), session.consts(stage)
    load = (rows if stage.views.plain else ViewRows(rows, stage.views)).__getitem__
    block = mesh_lib.local_rows(batch * mesh.size)

    def predictions(members: Sequence[int]) -> Iterator[tuple[Sequence[int], dict[str, np.ndarray]]]:
        """Yields, per batch, the members that this process predicted (perhaps none) and their arrays [n, ...]."""
        batches = batching.full_batches(load, {None: members}, batch=batch, mesh=mesh, threads=session.runtime.workers)
        for _, numbers, placed in batches:
            fields = predict(nets, placed, consts)
            local = numbers[block]
            yield local, {name: batching.local(value)[: len(local)] for name, value in fields.items()}

    write = _write_mean if isinstance(stage.write, Mean) else _write_records
    return write(session, stage, rows, predictions, stop)


Predictions = Callable[[Sequence[int]], Iterator[tuple[Sequence[int], dict[str, np.ndarray]]]]


def _write_records(
    session: Session, stage: Infer, rows: Rows, predictions: Predictions, stop: StopSignal
) -> dict[str, Any]:
    folder, workers = session.run_dir / stage.name / "records", session.runtime.workers
    mesh_lib.on_primary(f"records {stage.name}", functools.partial(folder.mkdir, parents=True, exist_ok=True))
    done = parts_done(folder)
    mesh_lib.barrier(f"records counted {stage.name}")
    # All processes infer a part together and one of them writes it, so a restart repeats at most one part.
    parts = [list(range(k, min(k + PART, len(rows)))) for k in range(0, len(rows), PART)]
    pending = [number for number in range(len(parts)) if number not in done]
    if done and pending:
        log.info("%s: goes on, %d of %d parts are done", stage.name, len(done), len(parts))
    began, inferred = time.perf_counter(), 0
    with Workers(workers if stage.finish is not None else 0) as pool:
        for number in pending:
            _check_interrupt(stage, stop, "its complete parts are kept")
            entries = [
                (rows.ids[k], {name: value[j] for name, value in arrays.items()})
                for members, arrays in predictions(parts[number])
                for j, k in enumerate(members)
            ]
            if stage.finish is not None:
                entries = list(pool.map_ordered(stage.finish, entries, ahead=4 * max(workers, 1)))
            entries = _gather([(name, _without_padding(rows, name, fields)) for name, fields in entries])
            if mesh_lib.is_primary():
                write_part(folder, number, entries)
            inferred += len(parts[number])
            rate = inferred / (time.perf_counter() - began)
            log.info("%s  %d/%d examples  %.1f images/s", stage.name, parts[number][-1] + 1, len(rows), rate)
    mesh_lib.barrier(f"records written {stage.name}")
    records = Records(folder)
    records.check_complete(rows.ids)
    return {"examples": len(rows), "inferred": inferred, **_statuses(stage, records)}


def _without_padding(rows: Rows, name: str, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cuts the valid part out of the fields that have the size of the canvas, so that they cover the image."""
    if rows.fit == "stretch":
        return fields
    reader = rows.reader
    height, width = rows.valid(tuple(reader.sizes[reader.index[name]].tolist()))
    return {key: value[:height, :width] if value.shape[:2] == rows.canvas else value for key, value in fields.items()}


def _statuses(stage: Infer, records: Records) -> dict[str, dict[str, int]]:
    """Counts the statuses of all entries, including those that an earlier call wrote."""
    if not stage.status:
        return {}
    statuses = collections.Counter(stage.status[int(records.read(name)["status"])] for name in records.ids)
    counts = {name: statuses[name] for name in stage.status}
    log.info("%s: %s", stage.name, ", ".join(f"{name} {count}" for name, count in counts.items()))
    return {"status": counts}


def _check_interrupt(stage: Infer, stop: StopSignal, outcome: str) -> None:
    if stop.agreed():
        raise Interrupted(f"{stage.name}: interrupted, {outcome}")


def _gather(entries: Entries) -> Entries:
    """Returns the entries of all processes, in the order of the processes."""
    if jax.process_count() == 1:
        return entries
    data = np.frombuffer(pickle.dumps(entries), np.uint8)
    sizes = mesh_lib.gather(np.array(data.size))
    blocks = mesh_lib.gather(np.pad(data, (0, sizes.max() - data.size)))
    return [entry for size, block in zip(sizes, blocks, strict=True) for entry in pickle.loads(block[:size].tobytes())]


def _write_mean(
    session: Session, stage: Infer, rows: Rows, predictions: Predictions, stop: StopSignal
) -> dict[str, Any]:
    totals: dict[str, np.ndarray] = {}
    for _, arrays in predictions(range(len(rows))):
        _check_interrupt(stage, stop, "nothing of the pass is kept")
        for name, value in arrays.items():
            totals[name] = totals.get(name, 0) + value.sum(axis=0, dtype=np.float64)
    totals = {name: mesh_lib.gather(total).sum(0) for name, total in sorted(totals.items())}
    means = {name: np.asarray(total / len(rows), np.float32) for name, total in totals.items()}
    bad = [name for name, value in means.items() if not np.isfinite(value).all()]
    if bad:
        raise InputError(f"stage {stage.name}: the mean of {bad} is not finite; check the settings of the stage")
    mesh_lib.on_primary(f"mean {stage.name}", write_arrays, session.run_dir / stage.name / MEAN, means)
    return {"examples": len(rows), "inferred": len(rows)}
