"""The runner: executes the stages of any recipe in a run folder, and measures its results."""

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
from scarce_jax.data.files import write_checked_json
from scarce_jax.data.records import load_mean
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError, Interrupted
from scarce_jax.recipe import Eval, Recipe, Source, Stage, Train, sources
from scarce_jax.runtime import Runtime
from scarce_jax.training import fingerprint as fp
from scarce_jax.training import folder
from scarce_jax.training.finite import FOLDER
from scarce_jax.training.infer import infer
from scarce_jax.training.inputs import Inputs
from scarce_jax.training.lock import clear
from scarce_jax.training.loop import train
from scarce_jax.training.plan import Plan, forget, take_over, with_dependents
from scarce_jax.training.session import Session
from scarce_jax.training.signals import StopSignal

log = logging.getLogger("scarce_jax")


def draw(budget: Budget, dataset: str, split: str, measured: list[Source], inputs: Inputs) -> Manifest:
    """Draws the label budget; raises InputError if it includes images that an evaluation measures."""
    reader = inputs.reader(dataset, split)
    splits = {(s.dataset, s.split) for s in measured if s.split is not None}
    forbidden = {name for key in sorted(splits - {(dataset, split)}) for name in inputs.reader(*key).ids}
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
    """Runs every stage that is not done, measures every result, and writes summary.json.

    Args:
      recipe: stages and results of a method.
      info: facts of the training dataset.
      run_dir: the run folder.
      data_dir: where datasets are prepared; None is the default.
      header: further content of config.json: resolved config, method, versions, command.
      seed: seed of the run.
      budget: the label budget, which is drawn from `train_split`.
      train_split: split of the dataset that is trained on.
      runtime: how the run is executed.
      mesh: devices to run on; default all.
      redo: a stage to run again, together with all stages that depend on it.
      reuse: other run folders, whose finished stages with equal fingerprints are reused.

    Returns:
      The content of summary.json.

    Raises:
      InputError: the folder holds a run with other settings, or an argument is wrong.
      Interrupted: SIGTERM or Ctrl-C; the state was saved.
    """
    began = time.perf_counter()
    mesh = mesh or mesh_lib.make_mesh()
    trained = [stage for stage in recipe.stages if isinstance(stage, Train)]
    for stage in trained:
        for source in stage.sources.values():
            mesh_lib.check_batch(mesh, {stage.name: source.batch}, stage.accumulate)
    folder.check_before_training(run_dir)
    session = Session(recipe, info.classes, run_dir, data_dir, mesh, runtime, seed, config=header.get("config", {}))
    measured = [result.source for result in recipe.results.values()]
    manifest = draw(budget, info.name, train_split, measured, session.inputs)
    session = dataclasses.replace(session, manifest=manifest)
    plan = Plan(session)
    again = with_dependents(recipe, redo) if redo is not None else set()
    # All checks come before anything is deleted.
    plan.check(again)
    results = plan.results()
    for other in reuse:
        if not (other / folder.CONFIG).exists():
            raise InputError(f"--reuse {other}: not a run folder (it has no config.json); expected that of another run")
    if again:
        mesh_lib.on_primary("redo", forget, plan, again)
    mesh_lib.on_primary("reuse", take_over, plan, reuse)
    facts = {
        "format": folder.FORMAT,
        **header,
        "dataset": {"name": info.name, "versions": plan.versions},
        "classes": info.classes,
        "palette": info.palette,
        "background": info.background,
        "native_ids": info.native_ids,
        "void_ids": info.void_ids,
        "steps": {s.name: n if isinstance(n := plan.steps[s.name], int) else None for s in trained},
        "devices": [d.device_kind for d in mesh.devices.flat],
    }
    mesh_lib.on_primary("config", write_checked_json, run_dir / folder.CONFIG, facts)
    mesh_lib.on_primary("manifest", manifest.write, run_dir / folder.MANIFEST)
    stages, offset = [], 0
    with StopSignal() as stop:
        for stage in recipe.stages:
            stages.append(_run_stage(plan, stage, offset, stop))
            if isinstance(stage, Train):
                offset += session.steps(stage)
            if stop.agreed():
                raise Interrupted(f"{stage.name}: done; interrupted after it")
    summary = _summarise(plan, header, stages, began, results)
    mesh_lib.on_primary("summary", write_checked_json, run_dir / folder.SUMMARY, summary)
    return summary


def _run_stage(plan: Plan, stage: Stage, offset: int, stop: StopSignal) -> dict[str, Any]:
    """Runs one stage unless it is done; returns the content of its DONE."""
    where = plan.run_dir / stage.name
    mesh_lib.on_primary(f"leftovers of {stage.name}", clear, where)
    done = plan.done(stage.name)
    if done is not None:
        amount = f"{done['steps']} steps" if "steps" in done else f"{done['examples']} examples"
        log.info("%s: done before (%s)", stage.name, amount)
        if mesh_lib.is_primary():
            _remove_leftovers(where)  # The run may have been killed right after it wrote DONE.
        return done
    began = time.perf_counter()
    session = plan.session
    mesh_lib.on_primary(f"begin {stage.name}", write_checked_json, where / folder.STAGE, plan.descriptions[stage.name])
    opened = {name: session.inputs.open(source) for name, source in sources(stage).items()}
    read = {name: _log_source(stage, name, source, len(opened[name])) for name, source in sources(stage).items()}
    first, *others = sources(stage).values()
    if isinstance(stage, Train):
        lower = (
            "the batch, the crop or the width of the net, or raise accumulate, set --runtime.resident False, or use "
            "more devices"
        )
    else:
        lower = memory.evaluation_flag(session.config, first.batch)
    batch = sum(source.batch for source in (first, *others))
    with memory.advice(what=f"stage {stage.name}", batch=batch, size=first.size, lower=lower):
        if isinstance(stage, Train):
            outcome = train(session, stage, rows=opened, steps=session.steps(stage), offset=offset, stop=stop)
        else:
            outcome = infer(session, stage, opened[stage.name], stop)
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
        folder.write_done(where, done)
        _remove_leftovers(where)
    mesh_lib.barrier(f"done {stage.name}")
    return done


def _remove_leftovers(where: pathlib.Path) -> None:
    """Deletes what only an unfinished stage needs."""
    for name in ("checkpoints", "best", FOLDER):
        shutil.rmtree(where / name, ignore_errors=True)


def _log_source(stage: Stage, name: str, source: Source, count: int) -> dict[str, Any]:
    """Logs which split, how many images and which labels a stage reads, and returns it for DONE."""
    labels = [str(label) for label in source.labels]
    ids = source.ids_in_words
    where = f"{source.dataset}/{source.split}, {count} images ({ids})"
    log.info("%s reads %s: %s, labels %s", stage.name, name, where, " or ".join(labels) or "none")
    return {"dataset": source.dataset, "split": source.split, "ids": ids, "images": count, "labels": labels}


def _brief(done: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a DONE without the checks of the stage and the places of all arrays that its nets took over."""
    brief = {key: value for key, value in done.items() if key not in ("fingerprint", "files")}
    if origins := brief.get("init_from"):
        brief["init_from"] = {
            role: {name: fact for name, fact in facts.items() if name != "used"} for role, facts in origins.items()
        }
    return brief


def _summarise(
    plan: Plan, header: Mapping[str, Any], stages: list[dict], began: float, results: Mapping[str, Eval]
) -> dict[str, Any]:
    """Measures the results, except those that summary.json already has for equal stages."""
    try:
        before = folder.read_summary(plan.run_dir)
    except InputError as error:
        log.warning("measured again: %s", error)
        before = None
    before = before or {"results": {}, "seconds": 0.0}
    figures_of = {}
    for name, evaluation in results.items():
        fingerprint = fp.fingerprint(plan.describe(evaluation))
        figures = before["results"].get(name, {})
        if figures.get("fingerprint") != fingerprint:
            measured = plan.session.measure(evaluation, plan.session.nets(evaluation))
            source = evaluation.source
            figures = {key: value for key, value in measured.items() if key != "confusion"}
            figures |= {"dataset": source.dataset, "split": source.split, "fingerprint": fingerprint}
        figures_of[name] = figures
    # A later call reports the time that the stages took, not its own.
    seconds = sum(stage["seconds"] for stage in stages) if before["results"] else time.perf_counter() - began
    return {
        "method": header["method"],
        "dataset": plan.session.manifest.dataset,
        "seed": plan.session.seed,
        "devices": plan.session.mesh.size,
        "seconds": round(seconds, 1),
        "stages": [_brief(stage) for stage in stages],
        "results": figures_of,
        "tables": {
            name: table.make({key: load_mean(plan.run_dir, a.stage, a.name) for key, a in table.reads.items()})
            for name, table in plan.session.recipe.tables.items()
        },
    }
