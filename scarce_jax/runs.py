"""The Python API, which the command line calls: `train`, `evaluate`, `load` and `predict`."""

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
from scarce_jax.config_files import default_workdir, from_json, resolve, to_json, use_compilation_cache
from scarce_jax.data.builders import is_generated, is_prepared, load_info, prepare
from scarce_jax.evaluation.files import find_images, predict_files
from scarce_jax.evaluation.predict import Predictor
from scarce_jax.ops.augment import MEAN, STD
from scarce_jax.provenance import git_revision, versions
from scarce_jax.recipe import Views
from scarce_jax.run_folder import choose_result, open_result, open_run, predictor
from scarce_jax.runtime import set_xla_flags
from scarce_jax.training.run import run

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
      InputError: an argument is wrong; nothing is lost or half-written.
      scarce_jax.errors.Interrupted: SIGTERM or Ctrl-C, after a checkpoint was saved.
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
    """Measures a result of a finished run on the devices at hand.

    Args:
      run_dir: the run folder.
      result: name of the result; default the recipe's first.
      split: the split to measure on; default that of the config.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.
      batch: images per device, which changes no figure; default that of the config.
      data_dir: where datasets are prepared; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      mesh: devices to run on; default all.

    Returns:
      {"run", "result", "dataset", "split", "images", "devices"} and the figures, all 0..1. Of masks, at the truth's
      native size: "miou", "mean_accuracy", "pixel_accuracy", "per_class" (IoU by class, None for one without a pixel),
      "classes_measured" (the number of the others, of which "miou" is the mean), "confusion"; "miou_at_size" at the
      size of the prediction; "miou_<group>", the mean over a group of classes; "views" if they are not plain. Of
      image tags: "map", "mean_f1", and "per_class" (average precision by class).

    Raises:
      InputError: there is no such run, result, split or dataset, or a checkpoint is damaged.
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


def load(
    run_dir: str | os.PathLike,
    result: str | None = None,
    *,
    views: Views | None = None,
    batch: int | None = None,
    mesh: Mesh | None = None,
) -> Predictor:
    """Loads a predictor from a run folder; needs no dataset.

    Args:
      run_dir: the run folder.
      result: name of the result; default the recipe's first.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.
      batch: images per device of `Predictor.stream`, which changes no mask; default that of the config.
      mesh: devices to run on; default all.

    Raises:
      InputError: there is no such run or result, the result predicts no masks, or a checkpoint is damaged.
    """
    session, info, config = open_run(run_dir, mesh=mesh)
    name, evaluation = choose_result(session, result, views, batch)
    return predictor(session, info, config, name, evaluation, session.nets(evaluation))


def predict(
    run_dir: str | os.PathLike,
    paths: str | os.PathLike | Sequence[str | os.PathLike],
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
    """Predicts image files: writes <stem>.png (class ids) and <stem>_overlay.png for each.

    Each file is read once. Nothing is written to `out` before all images are predicted.

    Args:
      run_dir: the run folder.
      paths: an image file or a folder of them, or several.
      out: folder for the pictures; it may exist.
      result: name of the result; default the recipe's first.
      coarse: folder with a coarse mask <stem>.png per image, for results that need one.
      confidence: also write <stem>_confidence.png, 0..255.
      native_ids: write the values of the dataset's own mask files instead of class ids.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.
      batch: images per device, which changes no mask; default that of the config.
      mesh: devices to run on; default all.

    Returns:
      {"result": name, "images": number of images, "out": the folder}.

    Raises:
      InputError: there is no such run or result, a checkpoint is damaged, there is no image, a file cannot be read, a
        coarse mask is missing or does not fit, an output would overwrite an input or another output, or the batch
        takes more memory than a device has.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    files = find_images([pathlib.Path(path) for path in several])
    predictor = load(run_dir, result, views=views, batch=batch, mesh=mesh)
    folder = None if coarse is None else pathlib.Path(coarse)
    what = f"predicting with result {predictor.name}"
    with memory.advice(what=what, batch=predictor.batch, size=predictor.size, lower="--batch", resumes=False):
        predict_files(predictor, files, pathlib.Path(out), coarse=folder, confidence=confidence, native_ids=native_ids)
    return {"result": predictor.name, "images": len(files), "out": str(out)}
