"""The runner: carries out any recipe in a run folder, stage by stage, and measures its results."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from scarce_jax import memory
from scarce_jax import mesh as mesh_lib
from scarce_jax.data.budget import Budget, Manifest, draw_manifest
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.data.source import Rows
from scarce_jax.errors import InputError, Interrupted
from scarce_jax.recipe import (
    Infer,
    Recipe,
    Source,
    Stage,
    Train,
    id_parts,
    sources,
)
from scarce_jax.runtime import Runtime
from scarce_jax.training import fingerprint as fp
from scarce_jax.training.folder import Plan, forget, read_json, take_over, with_dependents
from scarce_jax.training.infer import infer, load_mean
from scarce_jax.training.inputs import Inputs, TrainInput
from scarce_jax.training.log import write_json
from scarce_jax.training.loop import train
from scarce_jax.training.session import Session
from scarce_jax.training.signals import StopSignal

log = logging.getLogger("scarce_jax")


def draw(budget: Budget, dataset: str, split: str, measured: list[Source], inputs: Inputs) -> Manifest:
    """Draws the label budget; images that an evaluation measures must not be in it."""
    reader = inputs.reader(dataset, split)
    held_out = {(s.dataset, s.split) for s in measured if (s.dataset, s.split) != (dataset, split)}
    forbidden = {name for key in sorted(held_out) for name in inputs.reader(*key).ids}
    return draw_manifest(
        budget,
        reader.ids,
        reader.tags,
        classes=reader.info.classes,
        background=reader.info.background,
        dataset=dataset,
        version=reader.version,
        split=split,
        forbidden_ids=forbidden,
        lacking=reader.lacking,
    )


def run(
    recipe: Recipe,
    info: DatasetInfo,
    *,
    run_dir: pathlib.Path,
    data_dir: str | None,
    header: Mapping[str, Any],
    seed: int,
    budget: Budget,
    train_split: str,
    runtime: Runtime,
    mesh: Mesh | None = None,
    redo: str | None = None,
    reuse: Sequence[pathlib.Path] = (),
) -> dict[str, Any]:
    """Carries out every stage that is not done, measures every result, and writes summary.json.

    Args:
      header: what config.json says beside the classes: resolved config, method, versions, command.
      mesh: devices to run on; all of them by default.
      redo: a stage to do again, with all that read from it.
      reuse: other run folders whose finished stages with equal fingerprints are taken over.

    Returns:
      The content of summary.json.

    Raises:
      InputError: the folder holds a run with other settings, or something given is wrong.
    """
    began = time.perf_counter()
    mesh = mesh or mesh_lib.make_mesh()
    for stage in recipe.stages:
        if isinstance(stage, Train):
            for source in stage.sources.values():
                mesh_lib.check_batch(mesh, {stage.name: source.batch}, stage.accumulate)
    session = Session(recipe, info.classes, run_dir, data_dir, mesh, runtime, seed, config=header.get("config", {}))
    measured = [result.source for result in recipe.results.values()]
    manifest = draw(budget, info.name, train_split, measured, session.inputs)
    session = dataclasses.replace(session, manifest=manifest)
    plan = Plan(session)
    again = with_dependents(recipe, redo) if redo is not None else set()
    # All that may be refused is, before anything is deleted.
    plan.check(again)
    for other in reuse:
        if not (other / "config.json").exists():
            raise InputError(f"--reuse {other}: not a run folder (it has no config.json)")
    if again:
        forget(plan, again)
    for other in reuse:
        take_over(plan, other)
    if mesh_lib.is_primary():
        run_dir.mkdir(parents=True, exist_ok=True)
        facts = {
            "format": 1,
            **header,
            "dataset": {"name": info.name, "versions": plan.versions},
            "classes": list(info.classes),
            "palette": [list(colour) for colour in info.palette],
            "background": info.background,
            "native_ids": None if info.native_ids is None else list(info.native_ids),
            "steps": {s.name: plan.steps[s.name] for s in recipe.stages if isinstance(s, Train)},
            "devices": [f"{d.device_kind}" for d in mesh.devices.flat],
        }
        write_json(run_dir / "config.json", facts)
        manifest.write(run_dir / "manifest.json")
    mesh_lib.barrier("run folder")
    stages, offset = [], 0
    with StopSignal() as stop:
        for stage in recipe.stages:
            stages.append(_carry_out(plan, stage, offset, stop))
            offset += plan.steps[stage.name] or 0
            if stop.agreed():
                raise Interrupted(f"{stage.name}: done; interrupted after it")
    summary = _summarise(plan, header, stages, began)
    if mesh_lib.is_primary():
        write_json(run_dir / "summary.json", summary)
    mesh_lib.barrier("summary")
    return summary


def _carry_out(plan: Plan, stage: Stage, offset: int, stop: StopSignal) -> dict[str, Any]:
    """Runs one stage unless it is done; returns its DONE."""
    folder = plan.run_dir / stage.name
    done = plan.done(stage.name)
    if done is not None:
        log.info("%s: done before (%s)", stage.name, _outcome(done))
        if mesh_lib.is_primary():
            _remove_leftovers(folder)  # A kill may have come right after DONE.
        return done
    began = time.perf_counter()
    session = plan.session
    if mesh_lib.is_primary():
        write_json(folder / "stage.json", plan.descriptions[stage.name])
    mesh_lib.barrier(f"begin {stage.name}")
    opened = {name: session.inputs.open(source) for name, source in sources(stage).items()}
    read = {name: _log_source(stage, name, source, len(opened[name])) for name, source in sources(stage).items()}
    if isinstance(stage, Train):
        first = next(iter(stage.sources.values()))
        advice = memory.advice(
            what=f"stage {stage.name}",
            batch=sum(source.batch for source in stage.sources.values()),
            size=first.size,
            lower="the batch, the crop or the width of the net, or raise accumulate, set --runtime.resident False, or "
            "use more devices",
        )
        with advice:
            inputs = _inputs(session, stage, opened)
            steps = plan.steps[stage.name]
            outcome = train(session, stage, steps=steps, inputs=inputs, offset=offset, stop=stop)
    else:
        outcome = _infer(session, stage, opened[stage.name], stop)
    done = {
        "name": stage.name,
        "kind": type(stage).__name__.lower(),
        "fingerprint": plan.fingerprints[stage.name],
        "seconds": round(time.perf_counter() - began, 2),
        **outcome,
        "read": read,
    }
    mesh_lib.barrier(f"end {stage.name}")
    if mesh_lib.is_primary():
        write_json(folder / "DONE", done)
        _remove_leftovers(folder)
    mesh_lib.barrier(f"done {stage.name}")
    return done


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what only an unfinished stage needs."""
    for name in ("checkpoints", "best"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _inputs(session: Session, stage: Train, opened: Mapping[str, Rows]) -> dict[str, TrainInput]:
    """The rows that each step of the stage takes, by source."""
    drawn_as = stage.keys_as or stage.name
    return {
        name: TrainInput(
            source,
            opened[name],
            session.seed,
            f"{drawn_as}/{name}",
            session.mesh,
            session.runtime.workers,
            session.runtime.resident,
        )
        for name, source in stage.sources.items()
    }


def _infer(session: Session, stage: Infer, rows: Rows, stop: StopSignal) -> dict[str, Any]:
    source = stage.source
    lower = memory.evaluation_flag(session.config, source.batch)
    with memory.advice(what=f"stage {stage.name}", batch=source.batch, size=source.size, lower=lower):
        return infer(
            stage,
            rows=rows,
            nets=session.nets(stage),
            consts=session.consts(stage),
            runtime=session.runtime,
            mesh=session.mesh,
            run_dir=session.run_dir,
            stop=stop,
        )


def _log_source(stage: Stage, name: str, source: Source, count: int) -> dict[str, Any]:
    """Logs which split, how many images and which labels a stage reads; users of staged recipes get lost there."""
    labels = [str(label) for label in source.labels]
    ids = " and ".join(part if isinstance(part, str) else f"{part.stage} records" for part in id_parts(source))
    where = f"{source.dataset}/{source.split}, {count} images ({ids})"
    log.info("%s reads %s: %s, labels %s", stage.name, name, where, " or ".join(labels) or "none")
    return {"dataset": source.dataset, "split": source.split, "ids": ids, "images": count, "labels": labels}


def _outcome(done: Mapping[str, Any]) -> str:
    return f"{done['steps']} steps" if "steps" in done else f"{done['examples']} examples"


def _summarise(plan: Plan, header: Mapping[str, Any], stages: list[dict], began: float) -> dict[str, Any]:
    """Measures every result that was not measured on the same stages before."""
    path = plan.run_dir / "summary.json"
    before = read_json(path) if path.exists() else {"results": {}, "seconds": 0.0}
    results = {}
    for name, evaluation in plan.session.recipe.results.items():
        fingerprint = fp.fingerprint(plan.describe(evaluation))
        figures = before["results"].get(name, {})
        if figures.get("fingerprint") != fingerprint:
            measured = plan.session.result(name)
            source = evaluation.source
            figures = {key: value for key, value in measured.items() if key != "confusion"}
            figures |= {"dataset": source.dataset, "split": source.split, "fingerprint": fingerprint}
        results[name] = figures
    # A call that only measures again says how long the stages once took, not how long it took itself.
    seconds = sum(stage["seconds"] for stage in stages) if before["results"] else time.perf_counter() - began
    return {
        "method": header["method"],
        "dataset": plan.session.manifest.dataset,
        "seed": plan.session.seed,
        "devices": plan.session.mesh.size,
        "seconds": round(seconds, 1),
        "stages": [{key: value for key, value in stage.items() if key != "fingerprint"} for stage in stages],
        "results": results,
        "tables": {
            name: table.make({key: load_mean(plan.run_dir, a.stage, a.name) for key, a in table.reads.items()})
            for name, table in plan.session.recipe.tables.items()
        },
    }
