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
from scarce_jax.data.builders import import_builder
from scarce_jax.data.manifest import Manifest
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError, some
from scarce_jax.evaluation.predict import Predictor
from scarce_jax.ranges import check
from scarce_jax.recipe import Eval, Maps, NetState, Views, reads
from scarce_jax.runtime import Runtime
from scarce_jax.training.folder import CONFIG, MANIFEST, check_files, read_done, read_facts
from scarce_jax.training.plan import Plan
from scarce_jax.training.session import Session

log = logging.getLogger("scarce_jax")


def import_modules(run_dir: str | os.PathLike) -> None:
    """Imports the modules that a run folder names: its method's and its dataset's, if they are not of this package.

    This runs their code. Nothing else imports a name of a run folder.

    Raises:
      InputError: `run_dir` is not a run folder, or a module cannot be imported.
    """
    facts = read_facts(pathlib.Path(run_dir))
    methods.import_method(facts["method"])
    import_builder(facts["dataset"]["name"])


def open_run(
    run_dir: str | os.PathLike, data_dir: str | os.PathLike | None = None, mesh: Mesh | None = None
) -> tuple[Session, DatasetInfo, Any]:
    """Opens a finished run, as data: no module that it names is imported.

    Args:
      run_dir: the run folder.
      data_dir: where datasets are prepared; None is the default.
      mesh: devices to run on; default all.

    Returns:
      The session, the facts of the dataset, and the method's config.

    Raises:
      InputError: `run_dir` is not a run folder, has another format or holds a link, pipe or device; one of its files is
        damaged, or config.json does not describe its finished stages; or its method is neither of this package nor
        imported.
    """
    run_dir = pathlib.Path(run_dir)
    facts = read_facts(run_dir)
    config = _config(run_dir, facts)
    info = DatasetInfo.of_json(facts, name=facts["dataset"]["name"])
    use_compilation_cache()
    session = Session(
        recipe=methods.recipe_of(config, info),
        classes=info.classes,
        run_dir=run_dir,
        data_dir=None if data_dir is None else os.fspath(data_dir),
        mesh=mesh or mesh_lib.make_mesh(),
        config=facts["config"],
        runtime=Runtime(workers=os.cpu_count() or 1),
        seed=config.seed,
        manifest=Manifest.read(run_dir / MANIFEST),
    )
    Plan(session, facts).check_recorded()
    return session, info, config


def _config(run_dir: pathlib.Path, facts: Mapping[str, Any]) -> Any:
    """The method's config in the content of config.json."""
    try:
        return from_json(facts["method"], facts["config"])
    except InputError as error:
        raise InputError(f"{run_dir / CONFIG}: {error}") from error


def choose_result(
    session: Session, name: str | None = None, views: Views | None = None, batch: int | None = None
) -> tuple[str, Eval | Maps]:
    """Returns the name of a result or of maps of an opened run, and the result or the maps.

    Args:
      session: the run.
      name: name of the result, or of maps; default the recipe's first result.
      views: the views to predict; default those of the result.
      batch: images per device; default that of the config.

    Raises:
      InputError: there is no such result, or none at all; a stage that it needs is not finished or has lost a file, it
        takes no views, or the views or the batch are out of their range.
    """
    results = {**session.recipe.results, **session.recipe.maps}
    if name is None and not session.recipe.results:
        only = f", only the maps {', '.join(results)} (--result NAME)" if results else ""
        raise InputError(f"{session.run_dir}: has no result{only}; train one with --results NAME")
    name = next(iter(results)) if name is None else name
    if name not in results:
        raise InputError(f"result {name!r}: this run has {', '.join(results) or 'none'}; choose one of them")
    evaluation = results[name]
    for stage in {artifact.stage: None for artifact in reads(evaluation)}:
        done = read_done(session.run_dir, stage)
        if done is None:
            raise InputError(
                f"{session.run_dir}: stage {stage}, which result {name} needs, is not finished; run the train command "
                f"again"
            )
        check_files(session.run_dir, stage, done)
    if views is not None and isinstance(evaluation, Maps):
        raise InputError(f"result {name}: makes maps; it takes no --flip, --scales, --window or --crf")
    if views is not None and views != evaluation.views:
        check(views)
        if evaluation.metrics == "tags":
            raise InputError(f"result {name}: predicts image tags; it takes no --flip, --scales, --window or --crf")
        if evaluation.predict is None:
            raise InputError(f"result {name}: is a stored mask; it takes no --flip, --scales, --window or --crf")
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
    if isinstance(evaluation, Maps):
        raise InputError(f"result {name}: makes maps, which `predict` writes and `report` shows; nothing measures them")
    if split is not None and evaluation.inferred is not None:
        raise InputError(
            f"result {name}: is stored masks of {evaluation.source.split}, and cannot be measured on {split}; leave "
            f"out --split"
        )
    if split is None and evaluation.source.split is None:
        raise InputError(f"{run_dir}: was trained with --eval-split None, so name the split to measure with --split")
    if split is not None:
        evaluation = dataclasses.replace(evaluation, source=dataclasses.replace(evaluation.source, split=split))
    reader = session.inputs.reader(evaluation.source.dataset, evaluation.source.split)
    prepared = reader.info
    if prepared.classes != info.classes:
        raise InputError(
            f"dataset {info.name}: prepared with {len(prepared.classes)} classes ({some(prepared.classes)}), but the "
            f"run was trained on {len(info.classes)} ({some(info.classes)}); prepare the dataset that it was trained on"
        )
    before = read_facts(session.run_dir)["dataset"]["versions"].get(reader.dataset)
    if before not in (None, reader.version):
        log.warning(
            "dataset %s was prepared again since the training, with other content (%s then, %s now); what is measured "
            "is the new one",
            reader.dataset,
            before,
            reader.version,
        )
    return session, name, evaluation


def predictor(
    session: Session, info: DatasetInfo, config: Any, name: str, evaluation: Eval | Maps, nets: Mapping[str, NetState]
) -> Predictor:
    """Makes the predictor of a result or of maps with given nets; raises InputError if the result predicts no masks."""
    if isinstance(evaluation, Eval) and evaluation.metrics == "tags":
        raise InputError(
            f"result {name}: predicts image tags, not masks; `evaluate` measures it, and a run that predicts masks can "
            f"start from its net with init_from"
        )
    if isinstance(evaluation, Eval) and evaluation.inferred is not None:
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
