"""A recipe opened on a run folder and the devices at hand: what running it and evaluating it have in common."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from scarce_jax import memory
from scarce_jax import mesh as mesh_lib
from scarce_jax.data.budget import Manifest
from scarce_jax.data.figures import group_means, summarise
from scarce_jax.data.order import Order
from scarce_jax.errors import InputError
from scarce_jax.evaluation.evaluate import MaskEvaluation
from scarce_jax.evaluation.tags import TagEvaluation, summarise_tags
from scarce_jax.recipe import Artifact, Epochs, Eval, FromRun, Infer, Net, NetState, Pretrained, Recipe, Stage, Train
from scarce_jax.runtime import Runtime
from scarce_jax.training import state as state_lib
from scarce_jax.training.checkpoint import DamagedCheckpoint, load_net
from scarce_jax.training.infer import load_mean
from scarce_jax.training.inputs import Inputs
from scarce_jax.training.start import ImportedArrays, take

UNCOMPILED = ("name", "nets", "groups", "maps", "every", "keep_best", "patience", "consts")
"""Fields of an `Eval` that its measurement does not depend on, or is given with each call."""


@dataclasses.dataclass
class Session:
    """Opens sources, restores nets and measures.

    `manifest` is needed where a source reads a role of the budget; `config`, the method's as in config.json, names
    flags in messages.
    """

    recipe: Recipe
    classes: tuple[str, ...]
    run_dir: pathlib.Path
    data_dir: str | None
    mesh: Mesh
    runtime: Runtime = Runtime()
    seed: int = 0
    manifest: Manifest | None = None
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.inputs = Inputs(self.data_dir, self.run_dir, self.manifest, self.recipe)
        self._measurements: dict[Any, MaskEvaluation | TagEvaluation] = {}
        self.load = functools.lru_cache(maxsize=8)(self._load)

    def net(self, role: str, net: Net) -> NetState:
        """The net an Eval or a later stage starts from."""
        return self.load(net.init_from, role) if net.init_from else None

    def _load(self, artifact: Artifact, role: str) -> NetState:
        stage = self.recipe.stage(artifact.stage)
        if isinstance(stage, Infer):
            # A re-estimated net: the weights it was measured with, and the mean as its batch_stats.
            source = stage.nets[stage.write.into]
            net = self.load(source.init_from, role)
            flat = {k: load_mean(self.run_dir, stage.name, k) for k in traverse_util.flatten_dict(net.stats, sep="/")}
            stats = traverse_util.unflatten_dict(flat, sep="/")
            return net.replace(stats=mesh_lib.replicate(self.mesh, stats))
        path = self.run_dir / artifact.stage / "nets" / artifact.name
        try:
            return load_net(path, state_lib.abstract_net(stage.nets[artifact.name]), self.mesh)
        except DamagedCheckpoint as error:
            raise InputError(f"{error}; train it again with --redo {artifact.stage}") from error

    def nets(self, stage: Stage | Eval) -> dict[str, NetState]:
        """The nets of a stage that start from an earlier one."""
        return {role: self.net(role, net) for role, net in stage.nets.items() if isinstance(net.init_from, Artifact)}

    def outside(self, stage: Stage) -> dict[str, ImportedArrays]:
        """What nets of a stage take over from outside the run; raises InputError where that is missing or wrong."""
        return {
            role: take(net.init_from, state_lib.abstract_net(net), self.mesh)
            for role, net in stage.nets.items()
            if isinstance(net.init_from, FromRun | Pretrained)
        }

    def consts(self, stage: Stage | Eval) -> dict[str, Any]:
        """The stage's constants, replicated, means of earlier stages read from where they stand."""
        values = {
            name: load_mean(self.run_dir, value.stage, value.name) if isinstance(value, Artifact) else np.asarray(value)
            for name, value in stage.consts.items()
        }
        return mesh_lib.replicate(self.mesh, values)

    def measure(self, evaluation: Eval, nets: Mapping[str, NetState], *, lower: str | None = None) -> dict[str, Any]:
        """Every figure of one measurement (`summarise`, or `summarise_tags`), and the number of images.

        Args:
          lower: the flag to lower where memory runs out; default the one of the config that sets the batch.

        Raises:
          InputError: it takes more memory than a device has.
        """
        source = evaluation.source
        advice = memory.advice(
            what=f"measuring {evaluation.name} on {source.dataset}/{source.split}",
            batch=source.batch,
            size=source.size,
            lower=lower or memory.evaluation_flag(self.config, source.batch),
            resumes=lower is None,
        )
        with advice:
            return self._measure(evaluation, nets)

    def _measure(self, evaluation: Eval, nets: Mapping[str, NetState]) -> dict[str, Any]:
        measurement, source = self.measurement(evaluation), evaluation.source
        if evaluation.metrics == "tags":
            logits, tags = measurement(nets, self.consts(evaluation))
            background = self.inputs.reader(source.dataset, source.split).info.background
            return {"images": len(tags), **summarise_tags(logits, tags, self.classes, background)}
        native, at_size = measurement(nets, self.consts(evaluation))
        figures = summarise(native, self.classes)
        return {
            "images": len(self.inputs.ids(source, evaluation.hidden_truth)),
            **figures,
            **group_means(figures["per_class"], self.classes, evaluation.groups),
            "miou_at_size": summarise(at_size, self.classes)["miou"],
        }

    def measurement(self, evaluation: Eval) -> MaskEvaluation | TagEvaluation:
        """The compiled measurement, kept for the next time one is asked for that differs in its nets alone."""
        key = tuple(getattr(evaluation, x.name) for x in dataclasses.fields(evaluation) if x.name not in UNCOMPILED)
        if key not in self._measurements:
            rows = self.inputs.open(evaluation.source, evaluation.hidden_truth)
            shared = {
                "predict": evaluation.predict,
                "transform": evaluation.source.transform,
                "batch": evaluation.source.batch,
                "mesh": self.mesh,
                "threads": self.runtime.workers,
            }
            if evaluation.metrics == "tags":
                self._measurements[key] = TagEvaluation(rows, **shared)
            else:
                stored = None if evaluation.inferred is None else self.inputs.field(evaluation.inferred)
                self._measurements[key] = MaskEvaluation(
                    rows,
                    composite=evaluation.composite,
                    stored=stored,
                    views=evaluation.views,
                    classes=len(self.classes),
                    **shared,
                )
        return self._measurements[key]

    def result(self, name: str) -> dict[str, Any]:
        """Restores what a result needs and measures it."""
        evaluation = self.recipe.results[name]
        return self.measure(evaluation, self.nets(evaluation))

    def steps(self, stage: Stage) -> int | None:
        """The resolved number of optimizer steps."""
        if not isinstance(stage, Train):
            return None
        if not isinstance(stage.steps, Epochs):
            return stage.steps
        measured = stage if stage.steps.of is None else self.recipe.stage(stage.steps.of)
        source = next(iter(measured.sources.values()))
        ids = self.inputs.ids(source)
        reader = self.inputs.reader(source.dataset, source.split)
        weights = source.weight(reader.tags[[reader.index[i] for i in ids]]) if source.weight else None
        length = Order(len(ids), 0, weights).epoch_length
        return max(1, math.ceil(stage.steps.count * length / source.batch))
