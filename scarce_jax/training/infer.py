"""One pass over data: a jitted prediction, host work in processes, and records or a mean as the result."""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import logging
import pathlib
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax import mesh as mesh_lib
from scarce_jax.cpu.workers import map_ordered
from scarce_jax.data.files import write_atomically
from scarce_jax.data.records import PART, Records, parts_done, write_part
from scarce_jax.data.source import Row, Rows
from scarce_jax.errors import InputError, Interrupted
from scarce_jax.evaluation import passes
from scarce_jax.evaluation.views import mirror, scale_rows, view_rows
from scarce_jax.recipe import Infer, Mean, Views
from scarce_jax.runtime import Runtime
from scarce_jax.training.signals import StopSignal

log = logging.getLogger("scarce_jax")


@dataclasses.dataclass(frozen=True)
class ViewRows:
    """Rows of one image each, decoded once, in all views: `k/image` and so on for each scale k of the views."""

    rows: Rows
    views: Views

    def __getitem__(self, k: int) -> Row:
        example = self.rows.example(k)
        return view_rows(self.views, self.rows.size, True, functools.partial(self.rows.sized, example))


def compile_predict(stage: Infer, mesh: Mesh) -> Callable:
    """The jitted `(nets, rows, consts) -> {field: [B, ...]}`, every device predicting its own rows.

    Rows are those of the source, or of `ViewRows` where the views are not plain.
    """

    def transformed(rows, consts):
        key = jax.random.key(0)
        return jax.vmap(lambda row: stage.source.transform(row, key, consts))(rows)

    def plain(nets, rows, consts):
        return stage.predict(nets, transformed(rows, consts), consts)

    def combined(nets, rows, consts):
        predictions, mirrored = [], []
        for k in range(len(stage.views.scales)):
            batch = transformed(scale_rows(rows, k), consts)
            for flipped in (False, True) if stage.views.flip else (False,):
                view = {key: mirror(value, batch["width"]) for key, value in batch.items()} if flipped else batch
                predictions.append(stage.predict(nets, view, consts))
                mirrored.append(flipped)
        return stage.combine(predictions, mirrored)

    specs = (P(), P(mesh_lib.AXIS), P())
    local = plain if stage.views.plain else combined
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(mesh_lib.AXIS)))


def _predictions(
    stage: Infer,
    rows: Rows,
    members: list[int],
    nets: Any,
    consts: Any,
    predict: Callable,
    mesh: Mesh,
    threads: int,
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """Per batch the members that this process predicted, in order, none perhaps, and their arrays [n, ...]."""
    block = mesh_lib.local_rows(stage.source.batch * mesh.size)
    load = (rows if stage.views.plain else ViewRows(rows, stage.views)).__getitem__
    for _, numbers, batch in passes.batches(
        load, {None: members}, batch=stage.source.batch, mesh=mesh, threads=threads
    ):
        fields = predict(nets, batch, consts)
        local = numbers[block]
        yield local, {name: passes.local(value)[: len(local)] for name, value in fields.items()}


def infer(
    stage: Infer,
    *,
    rows: Rows,
    nets: Any,
    consts: Mapping[str, Any],
    runtime: Runtime,
    mesh: Mesh,
    run_dir: pathlib.Path,
    stop: StopSignal,
) -> dict[str, Any]:
    """Carries the stage out and writes `records/` or `mean.npz`; complete parts of an interrupted pass are kept.

    Returns:
      For DONE: number of examples, how many of them were inferred now, and how many have which status.

    Raises:
      Interrupted: SIGTERM or Ctrl-C; the parts done so far are kept.
    """
    folder = run_dir / stage.name
    predict = compile_predict(stage, mesh)
    if isinstance(stage.write, Mean):
        return _mean(stage, rows, nets, consts, predict, runtime, mesh, folder, stop)
    records = folder / "records"
    if mesh_lib.is_primary():
        records.mkdir(parents=True, exist_ok=True)
    mesh_lib.barrier(f"records {stage.name}")
    # A part is inferred by all processes together and written by one, so a restart repeats at most one part.
    done = parts_done(records)
    mesh_lib.barrier(f"records counted {stage.name}")
    parts = [list(range(k, min(k + PART, len(rows)))) for k in range(0, len(rows), PART)]
    pending = [number for number in range(len(parts)) if number not in done]
    if done and pending:
        log.info("%s: goes on, %d of %d parts are done", stage.name, len(done), len(parts))
    began, inferred = time.perf_counter(), 0
    for number in pending:
        _check_interrupt(stage, stop, "the parts done so far are kept")
        predictions = _predictions(stage, rows, parts[number], nets, consts, predict, mesh, runtime.workers)
        entries = [
            (rows.ids[k], {name: value[j] for name, value in arrays.items()})
            for members, arrays in predictions
            for j, k in enumerate(members)
        ]
        if stage.finish is not None:
            entries = list(map_ordered(stage.finish, entries, runtime.workers, ahead=4 * max(runtime.workers, 1)))
        entries = _gather(entries)
        if mesh_lib.is_primary():
            write_part(records, number, entries)
        inferred += len(parts[number])
        rate = inferred / (time.perf_counter() - began)
        log.info("%s  %d/%d examples  %.1f images/s", stage.name, parts[number][-1] + 1, len(rows), rate)
    mesh_lib.barrier(f"records written {stage.name}")
    written = Records(records)
    written.check_complete(rows.ids)
    return {"examples": len(rows), "inferred": inferred, **_statuses(stage, written)}


def _statuses(stage: Infer, records: Records) -> dict[str, dict[str, int]]:
    """How many examples have which status; of all entries, since another call may have written some."""
    if not stage.status:
        return {}
    statuses = collections.Counter(stage.status[int(records.read(name)["status"])] for name in records.ids)
    counts = {name: statuses[name] for name in stage.status}
    log.info("%s: %s", stage.name, ", ".join(f"{name} {count}" for name, count in counts.items()))
    return {"status": counts}


def _check_interrupt(stage: Infer, stop: StopSignal, outcome: str) -> None:
    if stop.agreed():
        raise Interrupted(f"{stage.name}: interrupted, {outcome}")


def _gather(entries: list[tuple[str, dict[str, np.ndarray]]]) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The entries of all processes in every process, in example order within a process's block."""
    if jax.process_count() == 1:
        return entries
    from jax.experimental import multihost_utils

    packed = io.BytesIO()
    ids = np.array([name for name, _ in entries])
    arrays = {f"{k}/{name}": value for k, (_, fields) in enumerate(entries) for name, value in fields.items()}
    np.savez(packed, ids=ids, **arrays)
    data = np.frombuffer(packed.getvalue(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([data.size]))[:, 0]
    buffer = np.zeros(sizes.max(), np.uint8)
    buffer[: data.size] = data
    gathered = multihost_utils.process_allgather(buffer)
    merged = []
    for size, block in zip(sizes, gathered, strict=True):
        with np.load(io.BytesIO(block[:size].tobytes()), allow_pickle=False) as archive:
            for k, name in enumerate(archive["ids"]):
                fields = {key.split("/", 1)[1]: archive[key] for key in archive.files if key.startswith(f"{k}/")}
                merged.append((str(name), fields))
    return merged


def _mean(
    stage: Infer,
    rows: Rows,
    nets: Any,
    consts: Any,
    predict: Callable,
    runtime: Runtime,
    mesh: Mesh,
    folder: pathlib.Path,
    stop: StopSignal,
) -> dict[str, Any]:
    totals: dict[str, np.ndarray] = {}
    members = list(range(len(rows)))
    for _, arrays in _predictions(stage, rows, members, nets, consts, predict, mesh, runtime.workers):
        _check_interrupt(stage, stop, "nothing is kept of it")
        for name, value in arrays.items():
            totals[name] = totals.get(name, 0) + value.sum(axis=0, dtype=np.float64)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        totals = {k: multihost_utils.process_allgather(v).sum(0) for k, v in sorted(totals.items())}
    means = {name: np.asarray(total / len(rows), np.float32) for name, total in totals.items()}
    bad = [name for name, value in means.items() if not np.isfinite(value).all()]
    if bad:
        raise InputError(f"stage {stage.name}: the mean of {bad} is not finite; check the stage's settings")
    if mesh_lib.is_primary():
        folder.mkdir(parents=True, exist_ok=True)
        # A file, since NumPy adds a suffix to a path.
        with write_atomically(folder / "mean.npz") as aside, aside.open("wb") as file:
            np.savez(file, **means)
    mesh_lib.barrier(f"mean {stage.name}")
    return {"examples": len(rows), "inferred": len(rows)}


def load_mean(run_dir: pathlib.Path, stage: str, name: str) -> np.ndarray:
    """Field `name` of what a `Mean` stage left; the zip's own checksums are verified."""
    path = run_dir / stage / "mean.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: {name!r} cannot be read ({error}); run again with --redo {stage}") from error
