"""Describes what a config would do, without doing it."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax import methods
from scarce_jax.config_files import from_json, resolve, to_json, use_compilation_cache, warn_of_remarks
from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import import_builder, is_prepared, load_info
from scarce_jax.data.datasets import KNOWN
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.optim import assign_groups
from scarce_jax.recipe import Artifact, Chosen, FromRun, Net, Pretrained, Recipe, Source, Stage, Train, sources
from scarce_jax.training import state as state_lib
from scarce_jax.training.fingerprint import plain
from scarce_jax.training.inputs import Inputs
from scarce_jax.training.labels import check_labels
from scarce_jax.training.run import draw

log = logging.getLogger("scarce_jax")


def dry_run(
    config: Any,
    data_dir: str | os.PathLike | None = None,
    *,
    compile: bool = False,
    target: str | None = None,
    check: bool = True,
) -> dict[str, Any]:
    """Describes what `train` would do, without data, accelerator or compilation.

    Args:
      compile: also compile every stage for the devices of this process, to measure its memory.
      target: compile for these GPUs instead, such as "h100x8"; see `benchmark.planned.plan`.
      check: also `check_data`.

    Returns:
      {"stages": [{"name", "kind", "steps", "batch", "nets", "reads", "peak_bytes"}]}. "steps" is null if it is given
      in epochs and neither the config nor the prepared dataset determines the number of images. "peak_bytes" is null
      without `compile`; otherwise it is the memory of the stage's program on each device: arguments, results, temporary
      memory, and the decoded images of resident sources. With `compile`, "backend" and "devices" are those of the
      programs; with `target`, "memory" says which GPUs the stage fits.

    Raises:
      InputError: the dataset is unknown, the config does not fit it, a stage cannot have the images or labels that it
        reads, or the target cannot be compiled for.
    """
    method = methods.name_of(config)
    if compile or target:
        config = resolve(config, "gpu" if target else None)
    config = from_json(method, to_json(config))
    warn_of_remarks(config)
    data_dir = None if data_dir is None else os.fspath(data_dir)
    info, recipe = known_recipe(config, data_dir)
    state_lib.check_origins(recipe)
    state_lib.check_groups(recipe)
    if check:
        check_data(config, data_dir)
    _warn_of_missing_origins(recipe)
    described = {"stages": [_describe_stage(stage, recipe, config, info) for stage in recipe.stages]}
    if not (compile or target):
        return described
    # Imported here, because `benchmark` imports this module.
    from scarce_jax.benchmark import targets

    memory = None

    def compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        return targets.compile_for(lowered)[0] if target else lowered.compile()

    if target:
        gpu, count = targets.parse_target(target)
        targets.without_devices()
        mesh = mesh_lib.make_mesh(targets.devices(gpu, count))
        memory = gpu.usable
    else:
        use_compilation_cache()
        mesh = mesh_lib.make_mesh()
    described |= {"backend": mesh.devices.flat[0].platform, "devices": [d.device_kind for d in mesh.devices.flat]}
    for stage, description in zip(recipe.stages, described["stages"], strict=True):
        peak = _memory(stage, recipe, config, info, mesh, compiled, memory)
        description["peak_bytes"] = peak
        if target:
            source = next(iter(sources(stage).values()))
            facts = (source.batch, source.size, peak, targets.fits(peak), mesh.size)
            description["memory"] = targets.memory_sentence(*facts)
    return described


def known_recipe(config: Any, data_dir: str | None) -> tuple[DatasetInfo, Recipe]:
    """The dataset's facts, built-in ones unless it is prepared, and the recipe.

    Raises:
      InputError: the dataset is neither built in nor prepared, or the config does not fit it.
    """
    import_builder(config.dataset)
    info = KNOWN.get(config.dataset)
    if info is None or is_prepared(config.dataset, data_dir):
        info = load_info(config.dataset, data_dir)
    return info, methods.recipe_of(config, info)


def check_data(config: Any, data_dir: str | os.PathLike | None = None) -> None:
    """Draws the label budget and looks at what every stage reads, as before a training, if the dataset is prepared.

    Raises:
      InputError: a stage lacks images or labels, as far as that is known before any stage ran.
    """
    data_dir = None if data_dir is None else os.fspath(data_dir)
    import_builder(config.dataset)
    if not is_prepared(config.dataset, data_dir):
        return
    info, recipe = known_recipe(config, data_dir)
    # No records are read, so there need be no run folder.
    inputs = Inputs(data_dir, pathlib.Path(), None, recipe)
    measured = [result.source for result in recipe.results.values()]
    inputs = dataclasses.replace(inputs, manifest=draw(config.budget, info.name, config.train_split, measured, inputs))
    for stage in recipe.stages:
        check_labels(stage, inputs)


def _warn_of_missing_origins(recipe: Recipe) -> None:
    """Warns of initial weights that are not on this machine, which need not be the one that trains."""
    origins = [net.init_from for stage in recipe.stages for net in stage.nets.values()]
    for origin in dict.fromkeys(origin for origin in origins if isinstance(origin, FromRun | Pretrained)):
        if origin.path is not None and not origin.path.exists():
            log.warning("init_from %s: %s is not on this machine; `train` needs it", origin, origin.path)


def _memory(
    stage: Stage,
    recipe: Recipe,
    config: Any,
    info: DatasetInfo,
    mesh: Mesh,
    compiled: Callable[[jax.stages.Lowered], jax.stages.Compiled],
    memory: int | None,
) -> int | None:
    """Bytes of a stage on one device, with resident sources; None if the backend does not report memory.

    Args:
      compiled: compiles a program.
      memory: bytes of a device that is not at hand.
    """
    # Imported here, because `synthetic` imports the training step, which takes a second.
    from scarce_jax.synthetic import lower, peak_bytes, resident_bytes

    if not isinstance(stage, Train):
        return peak_bytes(compiled(lower(stage, recipe, info, mesh)))
    for source in stage.sources.values():
        mesh_lib.check_batch(mesh, {stage.name: source.batch}, stage.accumulate)
    program = peak_bytes(compiled(lower(stage, recipe, info, mesh)))
    if program is None:
        return None
    for source in stage.sources.values():
        # If the budget does not determine the number of images, the source may hold the whole split.
        images = number_of_images(source, recipe, config.budget, info) or info.splits.get(source.split, source.batch)
        program += resident_bytes(source, recipe, info, images, config.runtime, mesh, memory)
    return program


@functools.lru_cache(maxsize=64)
def _leaf_sizes(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> Any:
    """The sizes of a net's parameters, as a tree; cached, because tracing a deep net takes seconds."""
    return jax.tree.map(lambda x: x.size, state_lib.abstract_net(Net(module=module, inputs=inputs)).params)


def count_parameters(net: Net) -> tuple[int, int]:
    """Number of parameters of a net, and of those that its optimizer updates: none in a frozen net or group."""
    sizes = _leaf_sizes(net.module, net.inputs)
    total = sum(jax.tree.leaves(sizes))
    if net.optim is None:
        return total, 0
    groups = net.optim.groups
    indices = jax.tree.leaves(assign_groups(groups, sizes))
    moved = (size for size, i in zip(jax.tree.leaves(sizes), indices, strict=True) if groups[i].lr != 0)
    return total, sum(moved)


def number_of_images(source: Source, recipe: Recipe, budget: Budget, info: DatasetInfo) -> int | None:
    """Number of images that a source reads; None if the config and the sizes of the splits do not determine it."""
    if source.weight is not None or source.part is not None:
        return None
    if source.take is not None:
        return source.take
    if any(isinstance(part, Chosen) for part in source.id_parts):
        return None
    # Images without a field that is read are left out; a role has the images with the field of its name.
    read = {*source.fields, *source.having, *source.labels}.difference(source.id_parts)
    if any(info.lacking.get(source.split, {}).get(field) for field in read):
        return None
    # The roles of one source are disjoint.
    counts = [
        number_of_images(recipe.stage(part.stage).source, recipe, budget, info)
        if isinstance(part, Artifact)
        else _role_size(part, source.split, budget, info)
        for part in source.id_parts
    ]
    return None if None in counts else sum(counts)


def _role_size(role: str, split: str, budget: Budget, info: DatasetInfo) -> int | None:
    """Number of images of a split that have a role of the budget; None if it depends on the data."""
    total = info.splits.get(split)
    if total is None or budget.strong_categories:
        return None
    if role not in ("fine", "unlabelled"):
        return total if role == "all" else info.having(split, role)
    if budget.per_class is not None or (isinstance(budget.fine, str) and budget.fine != "all"):
        return None
    fine = budget.fine
    if not isinstance(fine, int):
        fine = round((1.0 if fine == "all" else fine) * info.having(split, "fine"))
    return fine if role == "fine" else total - fine


def planned_steps(stage: Stage, recipe: Recipe, budget: Budget, info: DatasetInfo) -> int | None:
    """Steps of a training stage; None if they are not determined, or the stage does not train."""
    if not isinstance(stage, Train) or isinstance(stage.steps, int):
        return stage.steps if isinstance(stage, Train) else None
    source = recipe.counted(stage)
    total = number_of_images(source, recipe, budget, info)
    return None if total is None else stage.steps.resolve(total, source.batch)


def _describe_stage(stage: Stage, recipe: Recipe, config: Any, info: DatasetInfo) -> dict[str, Any]:
    nets = {}
    for role, net in stage.nets.items():
        parameters, trainable = count_parameters(net)
        origin = None if net.init_from is None else str(net.init_from)
        nets[role] = {"parameters": parameters, "trainable": trainable, "init_from": origin}
    reads = [
        {
            "source": name,
            "dataset": source.dataset,
            "split": source.split,
            **{key: plain(getattr(source, key)) for key in ("ids", "fields", "labels", "size")},
            **({} if source.part is None else {"part": str(source.part)}),
        }
        for name, source in sources(stage).items()
    ]
    return {
        "name": stage.name,
        "kind": type(stage).__name__.lower(),
        "steps": planned_steps(stage, recipe, config.budget, info),
        "batch": {name: source.batch for name, source in sources(stage).items()},
        "nets": nets,
        "reads": reads,
        "peak_bytes": None,
    }
