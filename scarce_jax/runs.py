"""The Python API, which the command line calls: `train`, `evaluate`, `load`, `predict` and `replay`."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from scarce_jax import memory, methods
from scarce_jax import mesh as mesh_lib
from scarce_jax.config_files import default_workdir, from_json, resolve, to_json, use_compilation_cache, warn_of_remarks
from scarce_jax.data.builders import import_builder, is_generated, is_prepared, load_info, prepare
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError
from scarce_jax.evaluation.files import predict_files
from scarce_jax.evaluation.inputs import Image, find_images, split_images
from scarce_jax.evaluation.predict import Predictor
from scarce_jax.ops.augment import MEAN, STD
from scarce_jax.provenance import git_revision, versions
from scarce_jax.recipe import Train, Views
from scarce_jax.run_folder import choose_result, import_modules, open_result, open_run, predictor
from scarce_jax.runtime import set_xla_flags
from scarce_jax.training.finite import FOLDER, REPORT
from scarce_jax.training.folder import read_facts
from scarce_jax.training.lock import held
from scarce_jax.training.replay import replay as replay_stage
from scarce_jax.training.run import run

log = logging.getLogger("scarce_jax")


def train(
    config: Any,
    workdir: str | os.PathLike[str] | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    redo: str | None = None,
    reuse: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    stem: str | None = None,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Trains a config in a run folder, resuming where an earlier call stopped.

    Args:
      config: the Config of a method.
      workdir: the run folder; default `runs/<stem>-<hash of the config>`.
      data_dir: where datasets are prepared; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      redo: a stage to run again, together with all stages that depend on it.
      reuse: one or several other run folders, whose finished stages with equal fingerprints are reused.
      stem: names the default run folder.
      mesh: devices to run on; default all.

    Returns:
      The content of summary.json.

    Raises:
      InputError: an argument is wrong, or another command is training in the folder; nothing is lost or half-written.
      scarce_jax.errors.Interrupted: SIGTERM or Ctrl-C, after a checkpoint was saved.
    """
    method = methods.name_of(config)
    set_xla_flags(config.runtime)
    use_compilation_cache()
    config = from_json(method, to_json(resolve(config)))
    warn_of_remarks(config)
    data_dir = None if data_dir is None else os.fspath(data_dir)
    import_builder(config.dataset)
    if is_generated(config.dataset) and not is_prepared(config.dataset, data_dir):
        log.info("preparing the dataset %s (once)", config.dataset)
        if mesh_lib.is_primary():
            prepare(config.dataset, data_dir)
    # Outside the condition, because a process may have found the dataset prepared by process 0.
    mesh_lib.barrier("prepared")
    info = load_info(config.dataset, data_dir)
    recipe = methods.recipe_of(config, info)
    header = {
        "method": method,
        "config": to_json(config),
        "normalisation": {"mean": [float(x) for x in MEAN], "std": [float(x) for x in STD]},
        "versions": versions(),
        "git_revision": git_revision(),
        "command": sys.argv,
    }
    others = [reuse] if isinstance(reuse, str | os.PathLike) else reuse or []
    run_dir = pathlib.Path(workdir if workdir is not None else default_workdir(config, stem))
    with held(run_dir):
        return run(
            recipe,
            info,
            run_dir=run_dir,
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


def evaluate(
    run_dir: str | os.PathLike[str],
    result: str | None = None,
    *,
    split: str | None = None,
    views: Views | None = None,
    batch: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
    allow_import: bool = False,
) -> dict[str, Any]:
    """Measures a result of a finished run on the devices at hand.

    Args:
      run_dir: the run folder.
      result: name of the result; default the recipe's first.
      split: the split to measure on; default that of the config.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.
      batch: images per device, which changes no figure; default that of the config.
      data_dir: where datasets are prepared; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      mesh: devices to run on; default all.
      allow_import: import the Python modules that the run folder names, which runs their code; only for folders you
        trust. A method or dataset of this package, or of a module that is imported already, needs none.

    Returns:
      {"run", "result", "dataset", "split", "images", "devices"} and the figures, all 0..1. Of masks, at the truth's
      native size: "miou", "mean_accuracy", "pixel_accuracy", "per_class" (IoU by class, None for one without a pixel),
      "classes_measured" (the number of the others, of which "miou" is the mean), "confusion"; "miou_at_size" at the
      size of the prediction; "miou_<group>", the mean over a group of classes; those of `data.figures.covered` if masks
      have void pixels; "views" if they are not plain. Of image tags: "map", "mean_f1", and "per_class" (average
      precision by class).

    Raises:
      InputError: there is no such run, result, split or dataset, or a checkpoint is damaged.
    """
    if allow_import:
        import_modules(run_dir)
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


def load(
    run_dir: str | os.PathLike[str],
    result: str | None = None,
    *,
    views: Views | None = None,
    batch: int | None = None,
    mesh: Mesh | None = None,
    allow_import: bool = False,
) -> Predictor:
    """Loads a predictor from a run folder; needs no dataset.

    Args:
      run_dir: the run folder.
      result: name of the result, or of maps; default the recipe's first result.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.
      batch: images per device of `Predictor.stream`, which changes no mask; default that of the config.
      mesh: devices to run on; default all.
      allow_import: import the Python modules that the run folder names, which runs their code; only for folders you
        trust. A method or dataset of this package, or of a module that is imported already, needs none.

    Raises:
      InputError: there is no such run or result, the result predicts no masks, or a checkpoint is damaged.
    """
    if allow_import:
        import_modules(run_dir)
    session, info, config = open_run(run_dir, mesh=mesh)
    name, evaluation = choose_result(session, result, views, batch)
    return predictor(session, info, config, name, evaluation, session.nets(evaluation))


def predict(
    run_dir: str | os.PathLike[str],
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    split: str | None = None,
    result: str | None = None,
    coarse: str | os.PathLike[str] | None = None,
    overlays: bool = True,
    confidence: bool = False,
    native_ids: bool = False,
    keep_going: bool = False,
    views: Views | None = None,
    batch: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
    allow_import: bool = False,
) -> dict[str, Any]:
    """Predicts images: writes <stem>.png (class ids) and <stem>_overlay.png for each.

    Masks are 8-bit palette files: their indices are the ids, and their colours those of the classes; void (255) is
    (224, 224, 192). An overlay has the tinted image at its top left, and a legend below it. Each file is read once.
    Nothing is written to `out` before all images are predicted.

    If `result` is maps, such as those of the L-Net, their pictures take the place of masks: <stem>_<map>.png, 8-bit
    grey, and the map laid over the image. A map of zeros is not written.

    Args:
      run_dir: the run folder.
      paths: an image file or a folder of them, or several. Folders are searched with their subfolders, which `out` gets
        too: `photos/cam1/x.jpg` of `photos` becomes `out/cam1/x.png`.
      out: folder for the pictures; it may exist. If it lies in a folder of `paths`, its files are no images to predict.
      split: the images of this split of the run's dataset are predicted in place of `paths`, which are then (). Their
        pictures have the names of the examples. It may be one without masks.
      result: name of the result, or of maps; default the recipe's first result.
      coarse: folder with a coarse mask per image, for results that need one: in the same subfolder, of the same name,
        with any suffix. Its ids are class ids, 255 and further void ids of the dataset. With `split` the default is
        the dataset's own coarse masks.
      overlays: also write the overlays; evaluation servers want masks alone.
      confidence: also write <stem>_confidence.png, 0..255: see `evaluation.predict.Prediction`.
      native_ids: masks, coarse ones too, have the values of the dataset's own mask files instead of class ids.
      keep_going: leave out files that cannot be read, and images whose coarse mask is missing or does not fit.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.
      batch: images per device, which changes no mask; default that of the config.
      data_dir: where datasets are prepared, for `split`; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      mesh: devices to run on; default all.
      allow_import: import the Python modules that the run folder names, which runs their code; only for folders you
        trust. A method or dataset of this package, or of a module that is imported already, needs none.

    Returns:
      {"result": name, "maps": whether it is maps, "images": number of predicted images, "out": the folder, "left_out":
      [what is wrong with each file that was left out]}.

    Raises:
      InputError: there is no such run, result or split, a checkpoint is damaged, there is no image, an output would
        overwrite an input or another output, or the batch takes more memory than a device has; without `keep_going`
        also: a file cannot be read, or a coarse mask is missing or does not fit.
    """
    several = [pathlib.Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    folder, out = None if coarse is None else pathlib.Path(coarse), pathlib.Path(out)
    images: Sequence[Image]
    faults: list[InputError] = []
    if split is None:
        images, faults = find_images(several, [out, *([] if folder is None else [folder])])
    elif several:
        raise InputError(f"--split {split}: found {several[0]} beside it; expected a split or files, so leave out one")
    else:
        dataset = read_facts(pathlib.Path(run_dir))["dataset"]["name"]
        if allow_import:
            import_modules(run_dir)
        images = split_images(Reader(dataset, split, None if data_dir is None else os.fspath(data_dir)))
    if faults and not keep_going:
        raise faults[0]
    predictor = load(run_dir, result, views=views, batch=batch, mesh=mesh, allow_import=allow_import)
    what = f"predicting with result {predictor.name}"
    with memory.advice(what=what, batch=predictor.batch, size=predictor.size, lower="--batch", resumes=False):
        unread = predict_files(
            predictor,
            images,
            out,
            coarse=folder,
            overlays=overlays,
            confidence=confidence,
            native_ids=native_ids,
            keep_going=keep_going,
        )
    return {
        "result": predictor.name,
        "maps": bool(predictor.map_names),
        "images": len(images) - len(unread),
        "out": str(out),
        "left_out": [str(fault) for fault in (*faults, *unread)],
    }


def replay(
    run_dir: str | os.PathLike[str],
    stage: str | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
    allow_import: bool = False,
) -> dict[str, Any]:
    """Repeats the steps before a loss that was not finite, and looks for what was the first not to be.

    Args:
      run_dir: the run folder.
      stage: the stage that stopped; default the last that left a report.
      data_dir: where datasets are prepared; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      mesh: devices to run on; default all.
      allow_import: import the Python modules that the run folder names, as in `evaluate`.

    Returns:
      See `training.replay.replay`.

    Raises:
      InputError: there is no such run or dataset, no stage left a report, or its checkpoint is damaged.
    """
    if allow_import:
        import_modules(run_dir)
    run_dir = pathlib.Path(run_dir)
    facts = read_facts(run_dir)
    reports = sorted(run_dir.glob(f"*/{FOLDER}/{REPORT}"), key=lambda path: path.stat().st_mtime)
    names = [path.parents[1].name for path in reports]
    name = (names[-1] if names else None) if stage is None else stage
    if name not in names:
        where = run_dir if stage is None else f"stage {stage!r} of {run_dir}"
        raise InputError(f"{where}: has no {FOLDER}/{REPORT}; nothing stopped it that was not finite")
    # Before the first use of a device.
    set_xla_flags(from_json(facts["method"], facts["config"]).runtime)
    session, _, _ = open_run(run_dir, data_dir, mesh)
    stopped = session.recipe.stage(name)
    assert isinstance(stopped, Train), "only training leaves a report"
    return replay_stage(session, stopped)
