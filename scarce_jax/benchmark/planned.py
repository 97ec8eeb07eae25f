"""Compiles the stages of a config for a GPU that is not at hand, and reads its cost from the program."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax import methods
from scarce_jax.benchmark import targets
from scarce_jax.benchmark.hlo import Kernel, kernels
from scarce_jax.benchmark.scaling import PROJECTED, project
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
SMALL = 3_000_000
"""Bytes below which a kernel takes about as long as its launch."""

WIDEST = 7
"""Side of the largest window that a net of this library has; a larger one is the gradient of a kernel."""

COSTLIEST = 10
TRIES = 6
"""Most programs that the search for the largest batch compiles."""


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
      InputError: the target or the stage is not known, the batch does not divide by the GPUs, or JAX's CUDA plugin is
        not installed.
    """
    gpu, count = targets.parse_target(target)
    if batch is not None and batch < 1:
        raise InputError(f"benchmark: found batch {batch}; expected at least 1")
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
    """What the bounds assume: GB/s and TFLOP/s, and their shares of the data sheet's."""
    return {
        "bandwidth": gpu.bytes_per_second / 1e9,
        **{unit: gpu.flops(unit) / 1e12 for unit in ("bfloat16", "tf32", "float32")},
        "share_of_bandwidth": targets.REACHED_BANDWIDTH,
        "share_of_flops": targets.REACHED_FLOPS,
    }


def compile_stage(
    stage: Stage, recipe: Recipe, info: DatasetInfo, mesh: Mesh, native: tuple[int, int] | None = None
) -> tuple[jax.stages.Compiled, float, float]:
    """The program of a stage, and the seconds to trace and to compile it."""
    if isinstance(stage, Train):
        for source in stage.sources.values():
            mesh_lib.check_batch(mesh, {stage.name: source.batch}, stage.accumulate)
    began = time.perf_counter()
    lowered = lower(stage, recipe, info, mesh, native)
    middle = time.perf_counter()
    compiled = lowered.compile(compiler_options=targets.COMPILER_OPTIONS)
    return compiled, middle - began, time.perf_counter() - middle


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
      "stage", "batch" (of the first source; over all GPUs), "images" (of all sources), "size", "crop" (what the nets
      see), "lower_seconds", "compile_seconds", "peak_bytes"
      (of one GPU; without a resident source's images), "fits" (by target), what `cost` returns, and "largest_batch".
    """
    compiled, tracing, compiling = compile_stage(stage, recipe, info, mesh, native)
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
        "lower_seconds": round(tracing, 1),
        "compile_seconds": round(compiling, 1),
        "peak_bytes": peak,
        "fits": targets.fits(peak),
        **cost(program, images, gpu, mesh.size),
        "largest_batch": None,
    }
    if largest:
        unit = mesh.size * stage.accumulate if isinstance(stage, Train) else 1

        def peak_of(batch: int) -> int:
            return peak_bytes(compile_stage(with_batch(stage, batch), recipe, info, mesh, native)[0])

        record["largest_batch"] = search(peak_of, {source.batch: peak}, unit, gpu.usable)
    return record


def seconds(kernel: Kernel, gpu: Gpu) -> float:
    """Least seconds of one run of a kernel: of its bytes or its products, whichever takes longer."""
    return max(kernel.bytes / gpu.bytes_per_second, kernel.flops / gpu.flops(kernel.unit))


def cost(program: Sequence[Kernel], images: int, gpu: Gpu, devices: int) -> dict[str, Any]:
    """What a program's kernels cost at least, on one of `devices` GPUs.

    Args:
      images: examples of one run, over all GPUs.

    Returns:
      "kernels", "small_kernels" (below `SMALL` bytes), "bytes" and "flops" of all but collectives; "bound_ms", the sum
      over them of the time of their bytes or of their products, whichever is longer; "bytes_bound", the share of it in
      kernels whose bytes take longer; "images_per_second" at the bound and with all-reduces as scheduled;
      "categories"; "costliest", the `COSTLIEST` kernels; "largest_window" of a convolution; "wide_windows", the number
      of windows above `WIDEST`; "all_reduces".
    """
    local = [kernel for kernel in program if not kernel.collective]
    taken = [kernel.runs * seconds(kernel, gpu) for kernel in local]
    bound = sum(taken)
    by_bytes = sum(
        part
        for kernel, part in zip(local, taken, strict=True)
        if part <= kernel.runs * kernel.bytes / gpu.bytes_per_second
    )
    windows = [kernel.window for kernel in local if kernel.window]
    reduces = _all_reduces(program, bound, gpu, devices)
    exposed = reduces["exposed_ms"] / 1e3 if reduces else 0.0
    order = sorted(range(len(local)), key=lambda k: -taken[k])[:COSTLIEST]
    return {
        "kernels": sum(kernel.runs for kernel in local),
        "small_kernels": sum(kernel.runs for kernel in local if kernel.bytes < SMALL),
        "bytes": sum(kernel.runs * kernel.bytes for kernel in local),
        "flops": sum(kernel.runs * kernel.flops for kernel in local),
        "bound_ms": 1e3 * bound,
        "bytes_bound": by_bytes / bound if bound else None,
        "images_per_second": images / (bound + exposed) if bound else None,
        "categories": _categories(local, taken),
        "costliest": [_line(local[k], taken[k]) for k in order],
        "largest_window": list(max(windows, key=max)) if windows else None,
        "wide_windows": sum(max(window) > WIDEST for window in windows),
        "all_reduces": reduces,
    }


def _line(kernel: Kernel, taken: float) -> dict[str, Any]:
    return {
        "kernel": kernel.name,
        "ms": 1e3 * taken,
        "runs": kernel.runs,
        "bytes": kernel.bytes,
        "flops": kernel.flops,
        "category": kernel.category,
        "phase": kernel.phase,
        "layer": kernel.layer,
        "window": None if kernel.window is None else list(kernel.window),
    }


def _categories(local: Sequence[Kernel], taken: Sequence[float]) -> list[dict[str, Any]]:
    """Kernels, bytes, FLOP and ms by category and phase, the costliest first."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for kernel, part in zip(local, taken, strict=True):
        one = (kernel.runs, kernel.runs * kernel.bytes, kernel.runs * kernel.flops, 1e3 * part)
        key = (kernel.category, kernel.phase)
        sums[key] = [total + part for total, part in zip(sums[key], one, strict=True)]
    keys = ("kernels", "bytes", "flops", "ms")
    ordered = sorted(sums.items(), key=lambda item: -item[1][-1])
    return [
        {"category": category, "phase": phase, **dict(zip(keys, values, strict=True))}
        for (category, phase), values in ordered
    ]


def _all_reduces(program: Sequence[Kernel], bound: float, gpu: Gpu, devices: int) -> dict[str, Any] | None:
    """Number and bytes of a program's collectives, and their projected cost; None on one GPU."""
    if devices == 1:
        return None
    found = []
    for k, kernel in enumerate(program):
        if kernel.collective:
            following = program[k + 1 : k + 1 + kernel.beside]
            found.append((kernel, sum(one.runs * seconds(one, gpu) for one in following if not one.collective)))
    sizes = [kernel.read for kernel, _ in found for _ in range(kernel.runs)]
    beside = [hidden for kernel, hidden in found for _ in range(kernel.runs)]
    here, *projected = (project(sizes, beside, bound, gpu, n) for n in (devices, *PROJECTED))
    del here["devices"]
    return {"count": len(sizes), "bytes": sum(sizes), "link": gpu.link, **here, "projected": projected}


def search(peak: Callable[[int], int], known: dict[int, int], unit: int, limit: int) -> dict[str, Any]:
    """The largest batch whose program needs at most `limit` bytes.

    Memory is nearly affine in the batch, so that two programs predict the largest batch; it is compiled too, and the
    prediction corrected, until the next larger batch is known not to fit or `TRIES` programs are compiled.

    Args:
      peak: batch -> bytes of its program.
      known: batch -> bytes, of at least one batch.
      unit: a batch is a multiple of it.

    Returns:
      "batch", null if even `unit` does not fit; "exact", whether the next larger one was compiled and does not fit;
      "peaks", the bytes of every batch that was compiled.
    """
    known = dict(known)
    (first,) = known
    second = unit * max(1, first // unit // 2)
    if second == first:
        second = 2 * unit
    known[second] = peak(second)
    while len(known) < TRIES + 1:
        fitting = max((batch for batch, needed in known.items() if needed <= limit), default=0)
        above = min((batch for batch, needed in known.items() if needed > limit), default=None)
        if above is not None and above - fitting <= unit:
            break
        (low, low_bytes), (high, high_bytes) = sorted(known.items(), key=lambda item: abs(item[1] - limit))[:2]
        slope = (high_bytes - low_bytes) / (high - low)
        guess = int(low + (limit - low_bytes) / slope) if slope > 0 else 2 * max(low, high)
        guess = max(fitting + unit, guess // unit * unit)
        guess = guess if above is None else min(guess, above - unit)
        known[guess] = peak(guess)
    fitting = max((batch for batch, needed in known.items() if needed <= limit), default=0)
    above = known.get(fitting + unit)
    return {
        "batch": fitting or None,
        "exact": above is not None and above > limit,
        "limit_bytes": limit,
        "peaks": {str(batch): known[batch] for batch in sorted(known)},
    }
