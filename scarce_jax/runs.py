"""The Python API that the command line calls: train a config, evaluate a run, predict image files."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from scarce_jax import memory, methods
from scarce_jax import mesh as mesh_lib
from scarce_jax.config_files import default_workdir, from_json, resolve, to_json, use_compilation_cache
from scarce_jax.data.budget import Manifest
from scarce_jax.data.builders import is_generated, is_prepared, load_info, prepare
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.evaluation.files import find_images, predict_files
from scarce_jax.evaluation.predict import Predictor
from scarce_jax.ops.augment import MEAN, STD
from scarce_jax.provenance import git_revision, versions
from scarce_jax.recipe import Eval, NetState, Recipe, Views, reads
from scarce_jax.runtime import Runtime
from scarce_jax.training.folder import read_json
from scarce_jax.training.run import run
from scarce_jax.training.session import Session

log = logging.getLogger("scarce_jax")


def train(
    config: Any,
    workdir: str | os.PathLike | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
    redo: str | None = None,
    reuse: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    stem: str | None = None,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Runs a config's recipe in a run folder, from where an earlier call stopped.

    Args:
      config: a method's Config.
      workdir: the run folder; default `runs/<stem>-<hash of the config>`.
      data_dir: where datasets are prepared; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      redo: a stage to do again, with all that read from it.
      reuse: another run folder, or several, whose equal finished stages are taken over.
      stem: names the default run folder.
      mesh: devices to run on; all of them by default.

    Returns:
      The content of summary.json.

    Raises:
      InputError: an argument is wrong; nothing is lost or half-written.
      scarce_jax.errors.Interrupted: SIGTERM or Ctrl-C, after the checkpoint was saved.
    """
    method = methods.name_of(config)
    set_xla_flags(config.runtime)
    use_compilation_cache()
    config = from_json(method, to_json(resolve(config)))
    data_dir = None if data_dir is None else os.fspath(data_dir)
    if is_generated(config.dataset) and not is_prepared(config.dataset, data_dir):
        log.info("preparing the dataset %s (once)", config.dataset)
        if mesh_lib.is_primary():
            prepare(config.dataset, data_dir)
    # Every process comes here: a later one may have found the dataset prepared by then.
    mesh_lib.barrier("prepared")
    info = load_info(config.dataset, data_dir)
    recipe = methods.by_name(method).recipe(config, info)
    header = {
        "method": method,
        "config": to_json(config),
        "normalisation": {"mean": [float(x) for x in MEAN], "std": [float(x) for x in STD]},
        "versions": versions(),
        "git_revision": git_revision(),
        "command": sys.argv,
    }
    others = [reuse] if isinstance(reuse, str | os.PathLike) else reuse or []
    return run(
        recipe,
        info,
        run_dir=pathlib.Path(workdir if workdir is not None else default_workdir(config, stem)),
        data_dir=data_dir,
        header=header,
        seed=config.seed,
        budget=config.budget,
        train_split=config.train_split,
        runtime=config.runtime,
        mesh=mesh,
        redo=redo,
        reuse=[pathlib.Path(other) for other in others],
    )


def set_xla_flags(runtime: Runtime) -> None:
    """Asks for deterministic kernels where `runtime` does; XLA reads it only when the first device is used."""
    flag, flags = "--xla_gpu_deterministic_ops=true", os.environ.get("XLA_FLAGS", "")
    if runtime.deterministic and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def read_facts(run_dir: pathlib.Path) -> dict[str, Any]:
    """The content of a run's config.json.

    Raises:
      InputError: not a run folder, or one of another format.
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
    """A finished run's recipe on the devices at hand, its dataset's facts and its config.

    Raises:
      InputError: not a run folder, or one of another format.
    """
    run_dir = pathlib.Path(run_dir)
    facts = read_facts(run_dir)
    config = from_json(facts["method"], facts["config"])
    info = DatasetInfo(
        name=facts["dataset"]["name"],
        classes=tuple(facts["classes"]),
        palette=tuple(tuple(colour) for colour in facts["palette"]),
        background=facts["background"],
        splits={},
        native_ids=None if facts["native_ids"] is None else tuple(facts["native_ids"]),
    )
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


def choose_result(recipe: Recipe, run_dir: pathlib.Path, name: str | None) -> tuple[str, Eval]:
    """The named result, or the first; raises InputError for an unknown name or a stage that is not done."""
    name = name or next(iter(recipe.results))
    if name not in recipe.results:
        raise InputError(f"result {name!r}: this run has {', '.join(recipe.results)}")
    evaluation = recipe.results[name]
    for artifact in reads(evaluation):
        if not (run_dir / artifact.stage / "DONE").exists():
            raise InputError(
                f"{run_dir}: stage {artifact.stage}, which result {name} needs, is not finished; "
                f"run the train command again"
            )
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
    """A finished run, and one of its results on a split of the dataset that it was trained on.

    Raises:
      InputError: no such run, result, split or dataset.
    """
    session, info, _ = open_run(run_dir, data_dir, mesh)
    name, evaluation = choose_result(session.recipe, session.run_dir, result)
    if split is not None and evaluation.inferred is not None:
        raise InputError(f"result {name}: is masks inferred on {evaluation.source.split}; leave out --split")
    if split is not None:
        evaluation = dataclasses.replace(evaluation, source=dataclasses.replace(evaluation.source, split=split))
    prepared = session.inputs.reader(evaluation.source.dataset, evaluation.source.split).info
    if prepared.classes != info.classes:
        raise InputError(
            f"dataset {info.name}: prepared with {len(prepared.classes)} classes {prepared.classes[:3]}..., but the "
            f"run was trained on {len(info.classes)} {info.classes[:3]}...; prepare the dataset that it was trained on"
        )
    return session, name, with_batch(with_views(name, evaluation, views), batch)


def evaluate(
    run_dir: str | os.PathLike,
    result: str | None = None,
    *,
    split: str | None = None,
    views: Views | None = None,
    batch: int | None = None,
    data_dir: str | os.PathLike | None = None,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Restores what a result needs, on whatever devices are here, and measures it.

    Args:
      result: its name; default the recipe's first.
      split: default the split that the config measures on.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.
      batch: images per device, which changes no figure; default the one of the config.
      mesh: devices to run on; all of them by default.

    Returns:
      {"run", "result", "dataset", "split", "images", "miou", "mean_accuracy", "pixel_accuracy", "per_class",
      "confusion", "devices", "miou_at_size"}: figures at the truth's native size, mIoU in 0..1. "views" says which,
      where they are not the image as it is; "miou_<group>" are means over groups of classes, where the method has
      such. Of a result of image tags "map" and "mean_f1" in place of the figures of masks, and the average precision of
      every class.

    Raises:
      InputError: no such run, result, split or dataset, or a damaged checkpoint.
    """
    session, name, evaluation = open_result(
        run_dir, result, split=split, views=views, batch=batch, data_dir=data_dir, mesh=mesh
    )
    figures = session.measure(evaluation, session.nets(evaluation), lower="--batch")
    return {
        "run": str(run_dir),
        "result": name,
        "dataset": evaluation.source.dataset,
        "split": evaluation.source.split,
        **({} if evaluation.views.plain else {"views": dataclasses.asdict(evaluation.views)}),
        **figures,
        "devices": session.mesh.size,
    }


def with_views(name: str, evaluation: Eval, views: Views | None) -> Eval:
    """The result predicted in other views; raises InputError for a result that predicts nothing."""
    if views is None or views == evaluation.views:
        return evaluation
    if evaluation.metrics == "tags":
        raise InputError(f"result {name}: says which classes an image has; it takes no flip, scales, window or CRF")
    if evaluation.predict is None:
        raise InputError(
            f"result {name}: is a mask that is there already, not a prediction; it takes no flip, scales, window or CRF"
        )
    return dataclasses.replace(evaluation, views=views)


def with_batch(evaluation: Eval, batch: int | None) -> Eval:
    """The result predicted in batches of `batch` images per device, None for its own; raises InputError below 1."""
    if batch is None:
        return evaluation
    if batch < 1:
        raise InputError(f"batch is {batch}; expected 1 or more images per device")
    return dataclasses.replace(evaluation, source=dataclasses.replace(evaluation.source, batch=batch))


def load(
    run_dir: str | os.PathLike,
    result: str | None = None,
    *,
    views: Views | None = None,
    batch: int | None = None,
    mesh: Mesh | None = None,
) -> Predictor:
    """A predictor from a run folder alone; see `Predictor`.

    Args:
      result: its name; default the recipe's first.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.
      batch: images per device of `Predictor.stream`, which changes no mask; default the one of the config.
      mesh: devices to run on; all of them by default.

    Raises:
      InputError: no such run or result, or a damaged checkpoint.
    """
    session, info, config = open_run(run_dir, mesh=mesh)
    name, evaluation = choose_result(session.recipe, session.run_dir, result)
    evaluation = with_batch(with_views(name, evaluation, views), batch)
    return predictor(session, info, config, name, evaluation, session.nets(evaluation))


def predict(
    run_dir: str | os.PathLike,
    paths: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    result: str | None = None,
    coarse: str | os.PathLike | None = None,
    confidence: bool = False,
    native_ids: bool = False,
    views: Views | None = None,
    batch: int | None = None,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Writes masks and overlays of any image files: <stem>.png (class ids) and <stem>_overlay.png.

    Each file is read once. Nothing is in `out` before all images are predicted.

    Args:
      paths: image files, or folders of them.
      out: folder for the pictures; it may be there already.
      result: its name; default the recipe's first.
      coarse: folder with a coarse mask <stem>.png per image, for results that need one.
      confidence: also write <stem>_confidence.png, 0..255.
      native_ids: write the dataset's own mask values instead of class ids.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.
      batch: images per device, which changes no mask; default the one of the config.
      mesh: devices to run on; all of them by default.

    Returns:
      {"result": name, "images": number of images, "out": the folder}.

    Raises:
      InputError: no such run or result, a damaged checkpoint, a path without images, a file that cannot be read, a
        coarse mask that is missing or does not fit, a picture that would overwrite another one or an input, or a
        batch that takes more memory than a device has.
    """
    files = find_images([pathlib.Path(path) for path in paths])
    predictor = load(run_dir, result, views=views, batch=batch, mesh=mesh)
    folder = None if coarse is None else pathlib.Path(coarse)
    what = f"predicting with result {predictor.name}"
    with memory.advice(what=what, batch=predictor.batch, size=predictor.size, lower="--batch", resumes=False):
        predict_files(predictor, files, pathlib.Path(out), coarse=folder, confidence=confidence, native_ids=native_ids)
    return {"result": predictor.name, "images": len(files), "out": str(out)}


def predictor(
    session: Session, info: DatasetInfo, config: Any, name: str, evaluation: Eval, nets: Mapping[str, NetState]
) -> Predictor:
    """The predictor of a result of this name with these nets."""
    if evaluation.metrics == "tags":
        raise InputError(
            f"result {name}: says which classes an image has, and predicts no masks; `evaluate` measures it, and a run "
            f"of masks can start from its net with init_from"
        )
    if evaluation.inferred is not None:
        raise InputError(
            f"result {name}: is masks of {evaluation.source.split} that are there already, and predicts none"
        )

    def needs_coarse(evaluation: Eval) -> bool:
        return "coarse" in evaluation.source.fields

    return Predictor(
        name=name,
        predict=evaluation.predict,
        transform=evaluation.source.transform,
        size=evaluation.source.size,
        needs_coarse=needs_coarse(evaluation),
        composite=evaluation.composite,
        nets=nets,
        consts=session.consts(evaluation),
        classes=info.classes,
        palette=info.palette,
        native_ids=info.native_ids,
        config=config,
        without_coarse=[n for n, other in session.recipe.results.items() if not needs_coarse(other)],
        batch=evaluation.source.batch,
        mesh=session.mesh,
        views=evaluation.views,
    )
