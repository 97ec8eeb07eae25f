"""Times what a config compiles: a stage's training step, or the prediction of a result."""

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
from scarce_jax.data.builders import is_prepared, load_info
from scarce_jax.data.datasets import KNOWN
from scarce_jax.errors import InputError
from scarce_jax.provenance import git_revision, versions
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
    """Compiles and times a stage's real step on synthetic rows and, where the dataset is prepared, on real data.

    Args:
      stage: a training stage; default the recipe's first. In mode "infer": the one that left the measured nets;
        default that of the first result that predicts anything.
      mode: "train"; or "infer", which times masks at native size through a `Predictor` with random nets.
      batch: examples per step of every source, over all devices; in mode "infer" images per device. Default the
        config's.
      steps: measured steps; those before them that compile and warm up are left out.
      native: (height, width) of the images in mode "infer"; default that of the dataset's first, else the source's
        size.
      name: stands as "config" in the record; default the method's name.

    Returns:
      One record of JSON values. Step times are in ms, between the ends of consecutive steps that are dispatched as
      training does; FLOPs, bytes and memory are those of one device.

      Both modes: "benchmark" (the mode), "git_revision", "versions", "device" (its kind), "devices", "config",
      "method", "stage", "dtype", "deterministic", "compile_cache", "global_batch", "size", "parameters", "steps",
      "median_step_ms", "p90_step_ms", "images_per_second", "images_per_second_per_device", "flops" of a step,
      "flops_per_second", "share_of_peak", "bytes", "bytes_per_second", "share_of_bandwidth" (`benchmark.roofline`),
      "memory" (the largest ever in use, where the device reports it).
      "train": "crop", "lower_seconds", "compile_seconds", "steps_per_dispatch", "flops_from", "peak_bytes",
      "data_wait" (share of the time spent waiting for batches), "loss_is_finite", and "real": the same times on the
      dataset's images, with "resident", "workers", "loader_images_per_second" and "loader_to_step", the ratio of the
      loader's rate to the step's; or null, and "real_missing" says why.
      "infer": "result", "native_size", "first_call_seconds" (which compiles) and "latency" (one image through
      `Predictor.predict`, host work included).

    Raises:
      InputError: no such stage, a batch that does not divide over the devices, or no memory for it.
    """
    if steps < 1 or (batch is not None and batch < 1):
        raise InputError(f"benchmark: found {steps} steps and batch {batch}; expected at least 1")
    if mode not in MODES:
        raise InputError(f"benchmark: mode {mode!r}; expected one of {', '.join(MODES)}")
    method = methods.name_of(config)
    set_xla_flags(config.runtime)
    config = from_json(method, to_json(resolve(config)))
    data_dir = None if data_dir is None else os.fspath(data_dir)
    prepared = is_prepared(config.dataset, data_dir)
    known = KNOWN.get(config.dataset)
    info = load_info(config.dataset, data_dir) if prepared or known is None else known
    recipe = methods.by_name(method).recipe(config, info)
    mesh = mesh_lib.make_mesh()
    session = Session(recipe, info.classes, pathlib.Path(), data_dir, mesh, config.runtime, config.seed)
    if mode == "train":
        trained = _with_batch(_training_stage(recipe, stage), batch)
        for source in trained.sources.values():
            mesh_lib.check_batch(mesh, {trained.name: source.batch}, trained.accumulate)
        missing = f"dataset {config.dataset} is not prepared"
        dataset = (config.budget, config.train_split) if prepared else missing
        record = time_training(session, info, trained, steps, config.dtype, dataset)
    else:
        result_name, result = _predicting_result(recipe, stage)
        size = native or _native_size(session, result, prepared)
        record = time_prediction(session, info, config, result_name, result, steps, batch or result.source.batch, size)
    device = mesh.devices.flat[0]
    return {
        "benchmark": mode,
        "git_revision": git_revision(),
        "versions": versions(),
        "device": device.device_kind,
        "devices": mesh.size,
        "config": name or method,
        "method": method,
        "dtype": config.dtype,
        "deterministic": config.runtime.deterministic,
        # With a persistent cache, compile seconds may be those of reading it.
        "compile_cache": jax.config.jax_compilation_cache_dir is not None,
        **record,
        "memory": memory_in_use(device),
    }


def _training_stage(recipe: Recipe, name: str | None) -> Train:
    """The training stage of this name, or the first."""
    stages = {stage.name: stage for stage in recipe.stages if isinstance(stage, Train)}
    if name is not None and name not in stages:
        raise InputError(f"stage {name!r}: no training stage of this recipe; it has {', '.join(stages)}")
    return stages[name or next(iter(stages))]


def _with_batch(stage: Train, batch: int | None) -> Train:
    """The stage with this batch in every source; None leaves it as it is."""
    if batch is None:
        return stage
    sources = {name: dataclasses.replace(source, batch=batch) for name, source in stage.sources.items()}
    return dataclasses.replace(stage, sources=sources)


def _predicting_result(recipe: Recipe, stage: str | None) -> tuple[str, Eval]:
    """The first result that predicts, with a net of this stage where one is named."""
    if stage is not None:
        _training_stage(recipe, stage)
    for name, result in recipe.results.items():
        stages = [net.init_from.stage for net in result.nets.values()]
        if result.predict is not None and (stage is None or stage in stages):
            return name, result
    raise InputError(f"stage {stage}: no result of this recipe predicts with a net of it")


def _native_size(session: Session, result: Eval, prepared: bool) -> tuple[int, int]:
    """(height, width) of the dataset's first image where it is prepared, else the size of the result's source."""
    source = result.source
    if prepared:
        return session.inputs.reader(source.dataset, source.split).read(0)["image"].shape[:2]
    if source.size is None:
        raise InputError("benchmark: masks are predicted at native size, which is not known; give --native H W")
    return source.size
