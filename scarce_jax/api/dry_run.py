"""What a config would do, without doing it."""

from __future__ import annotations

import functools
import math
import os
from typing import Any

import flax.linen as nn
import jax

from scarce_jax import methods
from scarce_jax.api.configs import from_json, to_json
from scarce_jax.data.budget import Budget
from scarce_jax.data.builders import BUILDERS, is_prepared, load_info
from scarce_jax.data.schema import KNOWN, DatasetInfo
from scarce_jax.training import state as state_lib
from scarce_jax.training.fingerprint import plain
from scarce_jax.training.recipe import Artifact, Epochs, Net, Source, Stage, Train, sources


def dry_run(config: Any, data_dir: str | os.PathLike | None = None) -> dict[str, Any]:
    """What `train` would do, without data, accelerator or compilation.

    Returns:
      {"stages": [{"name", "kind", "steps", "batch", "nets", "reads", "peak_bytes"}]}; steps given in epochs are null
      unless the dataset is prepared or the budget is a number.
    """
    method = methods.name_of(config)
    config = from_json(method, to_json(config))
    data_dir = None if data_dir is None else os.fspath(data_dir)
    info = KNOWN.get(config.dataset)
    if info is None or (config.dataset in BUILDERS and is_prepared(config.dataset, data_dir)):
        info = load_info(config.dataset, data_dir)
    recipe = methods.by_name(method).recipe(config, info)
    return {"stages": [_describe_stage(stage, config, info) for stage in recipe.stages]}


@functools.lru_cache(maxsize=64)
def _count_parameters(module: nn.Module, inputs: tuple[jax.ShapeDtypeStruct, ...]) -> int:
    """Several stages have the same net, and tracing a deep one takes seconds."""
    return sum(x.size for x in jax.tree.leaves(state_lib.abstract_net(Net(module=module, inputs=inputs)).params))


def _number_of_images(source: Source, budget: Budget, info: DatasetInfo) -> int | None:
    """How many images a source reads, as far as the config and the size of the split tell."""
    total = info.splits.get(source.split)
    if budget.per_class is not None or total is None:
        fine = None
    elif isinstance(budget.fine, str):
        fine = total if budget.fine == "all" else None
    else:
        fine = round(budget.fine * total) if isinstance(budget.fine, float) else budget.fine
    if isinstance(source.ids, Artifact) or budget.strong_categories or source.weight is not None:
        return None
    known = {"fine": fine, "unlabelled": None if fine is None else total - fine}
    return source.take if source.take is not None else known.get(source.ids, total)


def _describe_stage(stage: Stage, config: Any, info: DatasetInfo) -> dict[str, Any]:
    nets = {}
    for role, net in stage.nets.items():
        count = _count_parameters(net.module, net.inputs)
        init = f"{net.init_from.stage}/{net.init_from.name}" if net.init_from else None
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
            source = next(iter(given.values()))
            total = _number_of_images(source, config.budget, info)
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
