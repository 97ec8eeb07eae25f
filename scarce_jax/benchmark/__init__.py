"""Times what a config compiles: the training step of a stage, or the prediction of a result."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import jax

from scarce_jax import mesh as mesh_lib
from scarce_jax import methods
from scarce_jax.benchmark.prediction import time_prediction
from scarce_jax.benchmark.roofline import memory_in_use
from scarce_jax.benchmark.training import time_training
from scarce_jax.config_files import from_json, resolve, to_json
from scarce_jax.data.builders import is_prepared
from scarce_jax.dry_run import known_recipe
from scarce_jax.errors import InputError
from scarce_jax.provenance import environment
from scarce_jax.recipe import Eval, Recipe, Train
from scarce_jax.runtime import set_xla_flags
from scarce_jax.training.session import Session

MODES = ("train", "infer")


def benchmark(
    config: Any,
    *,
    stage: str | None = None,
    mode: str = "train",
    batch: int | None = None,
    steps: int = 20,
    native: tuple[int, int] | None = None,
    data_dir: str | os.PathLike | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Compiles and times the real step of a stage, on synthetic rows and, if the dataset is prepared, on its images.

    Args:
      stage: a training stage; default the first. In mode "infer", the stage that trains the net that predicts; default
        that of the first result that predicts.
      mode: "train", or "infer", which times masks at native size through a `Predictor` with random nets.
      batch: examples per step of every source, over all devices; in mode "infer", images per device. Default the
        config's.
      steps: number of measured steps, without those that compile and warm up.
      native: (height, width) of the images in mode "infer"; default that of the dataset's first image, or the size of
        the source where the dataset is not prepared.
      name: the record's "config"; default the method's name.

    Returns:
      A record of JSON values. A step time is the time in ms between the ends of consecutive steps, which are dispatched
      as in training. FLOPs, bytes and memory are those of one device.

      Both modes: "benchmark" (the mode), "git_revision", "versions", "device" (its kind), "devices", "config",
      "method", "stage", "dtype", "deterministic", "compile_cache", "global_batch", "size", "parameters", "steps",
      "median_step_ms", "p90_step_ms", "images_per_second", "images_per_second_per_device", "flops" of a step,
      "flops_per_second", "share_of_peak", "bytes", "bytes_per_second", "share_of_bandwidth" (`benchmark.roofline`),
      "memory" (the peak of this process, null where the device reports none).

      Mode "train": "crop", "lower_seconds", "compile_seconds", "steps_per_dispatch", "flops_from", "peak_bytes",
      "data_wait" (share of the time spent waiting for sources that are not resident), "loss_is_finite", and "real": the
      same times on the dataset's images, with "resident", "workers", "loader_images_per_second" and "loader_to_step"
      (the loader's rate over the step's). "real" is null where they cannot be timed; "real_missing" is the reason.

      Mode "infer": "result", "native_size", "first_call_seconds" (with compilation) and "latency" (one image through
      `Predictor.predict`, with the work on the host).

    Raises:
      InputError: the stage does not exist, the batch does not divide by the devices, or a device's memory cannot hold
        it.
    """
    if steps < 1 or (batch is not None and batch < 1):
        raise InputError(f"benchmark: found {steps} steps and batch {batch}; expected at least 1 of both")
    if mode not in MODES:
        raise InputError(f"benchmark: mode {mode!r}; expected one of {', '.join(MODES)}")
    method = methods.name_of(config)
    set_xla_flags(config.runtime)
    config = from_json(method, to_json(resolve(config)))
    data_dir = None if data_dir is None else os.fspath(data_dir)
    info, recipe = known_recipe(config, data_dir)
    prepared = is_prepared(config.dataset, data_dir)
    mesh = mesh_lib.make_mesh()
    session = Session(recipe, info.classes, pathlib.Path(), data_dir, mesh, config.runtime, config.seed)
    if mode == "train":
        trained = _training_stage(recipe, stage)
        if batch is not None:
            sources = {name: dataclasses.replace(source, batch=batch) for name, source in trained.sources.items()}
            trained = dataclasses.replace(trained, sources=sources)
        for source in trained.sources.values():
            mesh_lib.check_batch(mesh, {trained.name: source.batch}, trained.accumulate)
        missing = f"dataset {config.dataset} is not prepared"
        dataset = (config.budget, config.train_split) if prepared else missing
        record = time_training(session, info, trained, steps, config.dtype, dataset)
    else:
        result_name, result = _predicting_result(recipe, stage)
        size = native or _native_size(session, result, prepared)
        record = time_prediction(session, info, config, result_name, result, steps, batch or result.source.batch, size)
    return {
        "benchmark": mode,
        **environment(),
        "config": name or method,
        "method": method,
        "dtype": config.dtype,
        "deterministic": config.runtime.deterministic,
        # With a persistent cache, the compile seconds may be the time to read it.
        "compile_cache": jax.config.jax_compilation_cache_dir is not None,
        **record,
        "memory": memory_in_use(mesh.devices.flat[0]),
    }


def _training_stage(recipe: Recipe, name: str | None) -> Train:
    """The training stage with this name; the first for None."""
    stages = {stage.name: stage for stage in recipe.stages if isinstance(stage, Train)}
    if not stages:
        raise InputError("the recipe trains no net, so there is no step to measure; choose other --results")
    if name is not None and name not in stages:
        raise InputError(f"--stage: the recipe has no training stage {name!r}; expected one of {', '.join(stages)}")
    return stages[name or next(iter(stages))]


def _predicting_result(recipe: Recipe, stage: str | None) -> tuple[str, Eval]:
    """The first result that predicts, with a net of this stage unless it is None."""
    _training_stage(recipe, stage)
    for name, result in recipe.results.items():
        stages = [net.init_from.stage for net in result.nets.values()]
        if result.predict is not None and (stage is None or stage in stages):
            return name, result
    raise InputError(f"--stage {stage}: no result predicts with a net of this stage; choose another stage")


def _native_size(session: Session, result: Eval, prepared: bool) -> tuple[int, int]:
    """(height, width) of the dataset's first image, or of the result's source where the dataset is not prepared."""
    source = result.source
    if prepared and source.split is not None:
        return session.inputs.reader(source.dataset, source.split).read(0)["image"].shape[:2]
    if source.size is None:
        raise InputError("benchmark: the dataset is not prepared, so the native size is not known; give --native H W")
    return source.size
