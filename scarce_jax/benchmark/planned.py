"""Compiles the stages of a config for a GPU that is not at hand, and reads its cost from the program."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax import methods
from scarce_jax.benchmark import targets
from scarce_jax.benchmark.cost import cost
from scarce_jax.benchmark.hlo import Kernel, kernels
from scarce_jax.benchmark.largest import search
from scarce_jax.benchmark.targets import Gpu
from scarce_jax.benchmark.training import crop
from scarce_jax.config_files import from_json, resolve, to_json
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.dry_run import known_recipe
from scarce_jax.errors import InputError
from scarce_jax.provenance import git_revision, versions
from scarce_jax.recipe import Infer, Recipe, Stage, Train, sources
from scarce_jax.runtime import set_xla_flags
from scarce_jax.synthetic import abstract_consts, lower, peak_bytes, row_spec

KINDS = {"train": Train, "infer": Infer}


def plan(
    config: Any,
    target: str,
    *,
    stage: str | None = None,
    mode: str = "train",
    batch: int | None = None,
    native: tuple[int, int] | None = None,
    largest_batch: bool = False,
    data_dir: str | os.PathLike | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Compiles stages for a GPU that is not at hand; nothing runs, and no time is measured.

    XLA does not time its alternatives then, so cuDNN may take other algorithms on the GPU, with more scratch memory. On
    an H200, a step of DSNet at 512 x 1024 used 2.91 GB, and its program says 2.88 GB (benchmarks/results).

    The process computes on its CPU from then on, so call it before the first use of a device.

    Args:
      target: such as "h100", or "h100x8" for eight.
      stage: a stage; default all training stages, or all inferring ones in mode "infer".
      mode: "train" or "infer".
      batch: examples per step of every source, over all GPUs; in mode "infer", images per GPU. Default the config's.
      native: (height, width) of the images of stages that read native sizes.
      largest_batch: also search the largest batch that fits.
      data_dir: folder of prepared datasets.
      name: the record's "config"; default the method's name.

    Returns:
      A record of JSON values: "benchmark" ("target"), "git_revision", "versions", "target", "device" (its kind),
      "devices", "config", "method", "dtype", "deterministic", "limits" (what the bounds assume), and "stages", a
      `describe` of each.

    Raises:
      InputError: the target or the stage is not known, the batch does not divide by the GPUs, batch or native size is
        not positive, or JAX's CUDA plugin is not installed.
    """
    gpu, count = targets.parse_target(target)
    if batch is not None and batch < 1:
        raise InputError(f"benchmark: found batch {batch}; expected at least 1")
    if native is not None and min(native) < 1:
        raise InputError(f"benchmark: found native size {native[0]} x {native[1]}; expected at least 1 x 1")
    method = methods.name_of(config)
    set_xla_flags(config.runtime)
    config = from_json(method, to_json(resolve(config, "gpu")))
    info, recipe = known_recipe(config, None if data_dir is None else os.fspath(data_dir))
    chosen = [choose(recipe, stage, mode)] if stage else [s for s in recipe.stages if isinstance(s, KINDS[mode])]
    if not chosen:
        raise InputError(f"benchmark: the recipe has no stage of mode {mode}")
    if batch is not None:
        chosen = [with_batch(one, batch) for one in chosen]
    targets.without_devices()
    mesh = mesh_lib.make_mesh(targets.devices(gpu, count))
    return {
        "benchmark": "target",
        "git_revision": git_revision(),
        "versions": versions(),
        "target": target,
        "device": gpu.kind,
        "devices": count,
        "config": name or method,
        "method": method,
        "dtype": config.dtype,
        "deterministic": config.runtime.deterministic,
        "limits": limits(gpu),
        "stages": [describe(one, recipe, info, mesh, gpu, native, largest_batch) for one in chosen],
    }


def choose(recipe: Recipe, name: str, mode: str) -> Stage:
    """The stage of this name, which must be of the mode's kind."""
    stages = {stage.name: stage for stage in recipe.stages if isinstance(stage, KINDS[mode])}
    if name not in stages:
        raise InputError(
            f"--stage: the recipe has no stage {name!r} of mode {mode}; expected one of {', '.join(stages)}"
        )
    return stages[name]


def with_batch(stage: Stage, batch: int) -> Stage:
    """The stage with this batch of every source."""
    if isinstance(stage, Infer):
        return dataclasses.replace(stage, source=dataclasses.replace(stage.source, batch=batch))
    changed = {name: dataclasses.replace(source, batch=batch) for name, source in stage.sources.items()}
    return dataclasses.replace(stage, sources=changed)


def limits(gpu: Gpu) -> dict[str, Any]:
    """What is assumed: GB/s, TFLOP/s and bytes that a program can take, and their shares of what the GPU has."""
    return {
        "bandwidth": gpu.bytes_per_second / 1e9,
        **{unit: gpu.flops(unit) / 1e12 for unit in ("bfloat16", "tf32", "float32")},
        "share_of_bandwidth": targets.REACHED_BANDWIDTH,
        "share_of_flops": targets.REACHED_FLOPS,
        "memory": gpu.usable,
        "share_of_memory": gpu.usable / gpu.memory,
    }


def compile_stage(
    stage: Stage, recipe: Recipe, info: DatasetInfo, mesh: Mesh, native: tuple[int, int] | None = None
) -> tuple[jax.stages.Compiled, dict[str, Any]]:
    """The program of a stage, and "lower_seconds", "compile_seconds" and "triton_gemm" of its record."""
    if isinstance(stage, Train):
        for source in stage.sources.values():
            mesh_lib.check_batch(mesh, {stage.name: source.batch}, stage.accumulate)
    began = time.perf_counter()
    lowered = lower(stage, recipe, info, mesh, native)
    middle = time.perf_counter()
    compiled, triton = targets.compile_for(lowered)
    return compiled, {
        "lower_seconds": round(middle - began, 1),
        "compile_seconds": round(time.perf_counter() - middle, 1),
        "triton_gemm": triton,
    }


def describe(
    stage: Stage,
    recipe: Recipe,
    info: DatasetInfo,
    mesh: Mesh,
    gpu: Gpu,
    native: tuple[int, int] | None = None,
    largest: bool = False,
    keep: Callable[[list[Kernel]], Any] | None = None,
) -> dict[str, Any]:
    """Compiles one stage.

    Args:
      largest: also search the largest batch that fits.
      keep: is called with the program's kernels.

    Returns:
      "stage"; "batch" of the first source, over all GPUs, and "images" of all; "size" and "crop", (height, width)
      before and after the source's transform; "lower_seconds" and "compile_seconds", the time to trace and to compile;
      "triton_gemm", whether XLA's own kernels for matrix products were allowed; "peak_bytes" of one GPU, without a
      resident source's images, and "fits" by target; what `cost` returns; and "largest_batch", what `search` returns.
    """
    compiled, facts = compile_stage(stage, recipe, info, mesh, native)
    source = next(iter(sources(stage).values()))
    images = sum(one.batch for one in sources(stage).values())
    images *= 1 if isinstance(stage, Train) else mesh.size
    peak = peak_bytes(compiled)
    program = kernels(compiled.as_text())
    if keep is not None:
        keep(program)
    record = {
        "stage": stage.name,
        "batch": source.batch,
        "images": images,
        "size": source.size or native,
        "crop": crop(source, row_spec(source, recipe, info, native), abstract_consts(stage, recipe, info)),
        **facts,
        "peak_bytes": peak,
        "fits": targets.fits(peak),
        **cost(program, images, gpu, mesh.size),
        "largest_batch": None,
    }
    if largest:
        unit = stage.accumulate * math.lcm(mesh.size, stage.statistics_groups) if isinstance(stage, Train) else 1

        def peak_of(batch: int) -> int:
            return peak_bytes(compile_stage(with_batch(stage, batch), recipe, info, mesh, native)[0])

        record["largest_batch"] = search(peak_of, {source.batch: peak}, unit, gpu.usable)
    return record
