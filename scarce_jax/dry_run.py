"""What a config would do, without doing it."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax import methods
from scarce_jax.config_files import from_json, resolve, to_json, use_compilation_cache
from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import is_prepared, load_info
from scarce_jax.data.schema import KNOWN, DatasetInfo
from scarce_jax.recipe import Artifact, Epochs, Net, Recipe, Source, Stage, Train, id_parts, sources
from scarce_jax.training import state as state_lib
from scarce_jax.training.fingerprint import plain


def dry_run(config: Any, data_dir: str | os.PathLike | None = None, *, compile: bool = False) -> dict[str, Any]:
    """What `train` would do, without data, accelerator or compilation.

    Args:
      compile: also compile every stage for the devices at hand, to learn how much memory it takes.

    Returns:
      {"stages": [{"name", "kind", "steps", "batch", "nets", "reads", "peak_bytes"}]}; steps given in epochs are null
      unless the dataset is prepared or the budget is a number. `peak_bytes` is null without `compile`; with it, it is
      what the stage's program takes on each device (arguments, results, temporary memory; also decoded images where a
      source is resident), and "backend" and "devices" say for what it was compiled.
    """
    method = methods.name_of(config)
    config = from_json(method, to_json(resolve(config) if compile else config))
    data_dir = None if data_dir is None else os.fspath(data_dir)
    info = KNOWN.get(config.dataset)
    if info is None or is_prepared(config.dataset, data_dir):
        info = load_info(config.dataset, data_dir)
    recipe = methods.by_name(method).recipe(config, info)
    described = {"stages": [_describe_stage(stage, recipe, config, info) for stage in recipe.stages]}
    if compile:
        use_compilation_cache()
        mesh = mesh_lib.make_mesh()
        described |= {"backend": jax.default_backend(), "devices": [d.device_kind for d in mesh.devices.flat]}
        for stage, found in zip(recipe.stages, described["stages"], strict=True):
            found["peak_bytes"] = _memory(stage, recipe, config, info, mesh)
    return described


def _memory(stage: Stage, recipe: Recipe, config: Any, info: DatasetInfo, mesh: Mesh) -> int | None:
    from scarce_jax.benchmark.roofline import peak_bytes
    from scarce_jax.benchmark.synthetic import lower, resident_bytes

    given = sources(stage)
    if isinstance(stage, Train):
        for source in given.values():
            mesh_lib.check_batch(mesh, {stage.name: source.batch})
    images = {
        # Where the budget alone does not tell, a source may hold the whole split.
        name: number_of_images(source, recipe, config.budget, info) or info.splits.get(source.split, source.batch)
        for name, source in given.items()
    }
    found = peak_bytes(lower(stage, recipe, info, mesh).compile())
    if found is None or not isinstance(stage, Train):
        return found
    return found + sum(
        resident_bytes(source, recipe, info, images[name], config.runtime, mesh) for name, source in given.items()
    )


@functools.lru_cache(maxsize=64)
def _count_parameters(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> int:
    """Several stages have the same net, and tracing a deep one takes seconds."""
    return sum(x.size for x in jax.tree.leaves(state_lib.abstract_net(Net(module=module, inputs=inputs)).params))


def number_of_images(source: Source, recipe: Recipe, budget: Budget, info: DatasetInfo) -> int | None:
    """How many images a source reads, as far as the config and the size of the split tell."""
    parts = id_parts(source)
    if len(parts) > 1:
        # Roles that are given together are disjoint.
        counts = [
            number_of_images(dataclasses.replace(source, ids=part, take=None), recipe, budget, info) for part in parts
        ]
        return None if None in counts else source.take or sum(counts)
    if isinstance(parts[0], Artifact):
        return source.take or number_of_images(recipe.stage(parts[0].stage).source, recipe, budget, info)
    total = info.splits.get(source.split)
    if budget.per_class is not None or total is None:
        fine = None
    elif isinstance(budget.fine, str):
        fine = info.having(source.split, "fine") if budget.fine == "all" else None
    else:
        fine = round(budget.fine * info.having(source.split, "fine")) if isinstance(budget.fine, float) else budget.fine
    if budget.strong_categories or source.weight is not None:
        return None
    known = {"fine": fine, "unlabelled": None if fine is None else total - fine}
    known |= {role: info.having(source.split, role) for role in ("coarse", "tags")}
    return source.take if source.take is not None else known.get(source.ids, total)


def _describe_stage(stage: Stage, recipe: Recipe, config: Any, info: DatasetInfo) -> dict[str, Any]:
    nets = {}
    for role, net in stage.nets.items():
        count = _count_parameters(net.module, net.inputs)
        init = None if net.init_from is None else str(net.init_from)
        trainable = count if net.optim else 0
        nets[role] = {"parameters": count, "trainable": trainable, "init_from": init}
    given = sources(stage)
    reads = [
        {
            "source": name,
            "dataset": source.dataset,
            "split": source.split,
            "ids": plain(source.ids),
            "fields": plain(source.fields),
            "labels": plain(source.labels),
            "size": plain(source.size),
        }
        for name, source in given.items()
    ]
    steps = None
    if isinstance(stage, Train):
        steps = stage.steps
        if isinstance(steps, Epochs):
            counted = stage if steps.of is None else recipe.stage(steps.of)
            source = next(iter(counted.sources.values()))
            total = number_of_images(source, recipe, config.budget, info)
            steps = None if total is None else max(1, math.ceil(steps.count * total / source.batch))
    return {
        "name": stage.name,
        "kind": type(stage).__name__.lower(),
        "steps": steps,
        "batch": {name: source.batch for name, source in given.items()},
        "nets": nets,
        "reads": reads,
        "peak_bytes": None,
    }
