"""Opening run folders: restoring a run on the devices at hand, and choosing one of its results."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax import methods
from scarce_jax.config_files import from_json, use_compilation_cache
from scarce_jax.data.files import read_json
from scarce_jax.data.manifest import Manifest
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.evaluation.predict import Predictor
from scarce_jax.recipe import Eval, NetState, Views, reads
from scarce_jax.runtime import Runtime
from scarce_jax.training.session import Session

log = logging.getLogger("scarce_jax")


def read_facts(run_dir: pathlib.Path) -> dict[str, Any]:
    """Reads the config.json of a run.

    Raises:
      InputError: `run_dir` is not a run folder, or has another format.
    """
    if not (run_dir / "config.json").exists():
        raise InputError(f"{run_dir}: not a run folder (it has no config.json); expected what `scarce-jax train` made")
    facts = read_json(run_dir / "config.json")
    if facts.get("format") != 1:
        raise InputError(f"{run_dir}/config.json: format {facts.get('format')!r}, expected 1; update scarce-jax")
    return facts


def open_run(
    run_dir: str | os.PathLike, data_dir: str | os.PathLike | None = None, mesh: Mesh | None = None
) -> tuple[Session, DatasetInfo, Any]:
    """Opens a finished run.

    Args:
      run_dir: the run folder.
      data_dir: where datasets are prepared; None is the default.
      mesh: devices to run on; default all.

    Returns:
      The session, the facts of the dataset, and the method's config.

    Raises:
      InputError: `run_dir` is not a run folder, or has another format.
    """
    run_dir = pathlib.Path(run_dir)
    facts = read_facts(run_dir)
    config = from_json(facts["method"], facts["config"])
    info = DatasetInfo.of_json(facts, name=facts["dataset"]["name"])
    use_compilation_cache()
    session = Session(
        recipe=methods.by_name(facts["method"]).recipe(config, info),
        classes=info.classes,
        run_dir=run_dir,
        data_dir=None if data_dir is None else os.fspath(data_dir),
        mesh=mesh or mesh_lib.make_mesh(),
        config=facts["config"],
        runtime=Runtime(workers=os.cpu_count() or 1),
        seed=config.seed,
        manifest=Manifest.read(run_dir / "manifest.json"),
    )
    return session, info, config


def choose_result(
    session: Session, name: str | None = None, views: Views | None = None, batch: int | None = None
) -> tuple[str, Eval]:
    """Returns the name of a result of an opened run, and the result.

    Args:
      session: the run.
      name: name of the result; default the recipe's first.
      views: the views to predict; default those of the result.
      batch: images per device; default that of the config.

    Raises:
      InputError: there is no such result, a stage that it needs is not finished, it takes no views, or the batch is
        below 1.
    """
    results = session.recipe.results
    name = name or next(iter(results))
    if name not in results:
        raise InputError(f"result {name!r}: this run has {', '.join(results)}; choose one of them")
    evaluation = results[name]
    for artifact in reads(evaluation):
        if not (session.run_dir / artifact.stage / "DONE").exists():
            raise InputError(
                f"{session.run_dir}: stage {artifact.stage}, which result {name} needs, is not finished; "
                f"run the train command again"
            )
    if views is not None and views != evaluation.views:
        if evaluation.metrics == "tags":
            raise InputError(f"result {name}: predicts image tags; it takes no flip, scales, window or CRF")
        if evaluation.predict is None:
            raise InputError(f"result {name}: is a stored mask; it takes no flip, scales, window or CRF")
        evaluation = dataclasses.replace(evaluation, views=views)
    if batch is not None:
        if batch < 1:
            raise InputError(f"batch is {batch}; expected 1 or more images per device")
        evaluation = dataclasses.replace(evaluation, source=dataclasses.replace(evaluation.source, batch=batch))
    return name, evaluation


def open_result(
    run_dir: str | os.PathLike,
    result: str | None = None,
    *,
    split: str | None = None,
    views: Views | None = None,
    batch: int | None = None,
    data_dir: str | os.PathLike | None = None,
    mesh: Mesh | None = None,
) -> tuple[Session, str, Eval]:
    """Opens a finished run, and one of its results on a split of the dataset that it was trained on.

    Args:
      run_dir: the run folder.
      result: name of the result; default the recipe's first.
      split: the split to measure on; default that of the result.
      views: the views to predict; default those of the result.
      batch: images per device; default that of the config.
      data_dir: where datasets are prepared; None is the default.
      mesh: devices to run on; default all.

    Raises:
      InputError: there is no such run, result, split or dataset, or the dataset has other classes than the run.
    """
    session, info, _ = open_run(run_dir, data_dir, mesh)
    name, evaluation = choose_result(session, result, views, batch)
    if split is not None and evaluation.inferred is not None:
        raise InputError(
            f"result {name}: is stored masks of {evaluation.source.split}, and cannot be measured on {split}; leave "
            f"out --split"
        )
    if split is not None:
        evaluation = dataclasses.replace(evaluation, source=dataclasses.replace(evaluation.source, split=split))
    reader = session.inputs.reader(evaluation.source.dataset, evaluation.source.split)
    prepared = reader.info
    if prepared.classes != info.classes:
        raise InputError(
            f"dataset {info.name}: prepared with {len(prepared.classes)} classes {prepared.classes[:3]}..., but the "
            f"run was trained on {len(info.classes)} {info.classes[:3]}...; prepare the dataset that it was trained on"
        )
    trained_on = read_facts(session.run_dir)["dataset"]["versions"].get(reader.dataset)
    if trained_on not in (None, reader.version):
        log.warning(
            "%s: dataset %s was prepared again with other content since the run was trained (then %s, now %s); figures "
            "are of the new content",
            run_dir,
            reader.dataset,
            trained_on,
            reader.version,
        )
    return session, name, evaluation


def predictor(
    session: Session, info: DatasetInfo, config: Any, name: str, evaluation: Eval, nets: Mapping[str, NetState]
) -> Predictor:
    """Makes the predictor of a result with given nets; raises InputError if the result predicts no masks."""
    if evaluation.metrics == "tags":
        raise InputError(
            f"result {name}: predicts image tags, not masks; `evaluate` measures it, and a run that predicts masks can "
            f"start from its net with init_from"
        )
    if evaluation.inferred is not None:
        raise InputError(f"result {name}: is stored masks of {evaluation.source.split}; it predicts none")
    return Predictor(
        name,
        evaluation,
        nets=nets,
        consts=session.consts(evaluation),
        info=info,
        config=config,
        without_coarse=[other for other, result in session.recipe.results.items() if not result.needs_coarse],
        mesh=session.mesh,
    )
