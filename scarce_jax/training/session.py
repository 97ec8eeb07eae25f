"""A recipe opened in a run folder on a mesh: what training and evaluation share."""

from __future__ import annotations

import dataclasses
import functools
import operator
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from scarce_jax import memory
from scarce_jax import mesh as mesh_lib
from scarce_jax.data.budget import Manifest
from scarce_jax.data.figures import covered, group_means, summarise
from scarce_jax.data.order import Order
from scarce_jax.data.records import load_mean, load_means
from scarce_jax.errors import InputError
from scarce_jax.evaluation.evaluate import MaskEvaluation
from scarce_jax.evaluation.tags import TagEvaluation, summarise_tags
from scarce_jax.models.weights import Backbone
from scarce_jax.recipe import (
    Artifact,
    Epochs,
    Eval,
    FromRun,
    Infer,
    Maps,
    NetState,
    Pretrained,
    Recipe,
    Source,
    Stage,
    Train,
)
from scarce_jax.runtime import Runtime
from scarce_jax.training import state as state_lib
from scarce_jax.training.checkpoint import DamagedCheckpoint, load_net
from scarce_jax.training.inputs import Inputs, draws
from scarce_jax.training.labels import without_truth
from scarce_jax.training.origins import ImportedArrays, backbone_flag, take

_compiled_from = operator.attrgetter(
    "predict", "source", "metrics", "composite", "threshold", "inferred", "hidden_truth", "views"
)


@dataclasses.dataclass
class Session:
    """Opens sources, restores nets and measures results.

    Attributes:
      recipe: the stages and results of a method.
      classes: class names of the dataset.
      run_dir: the run folder.
      data_dir: where datasets are prepared; None is the default.
      mesh: devices to run on.
      runtime: how the run is executed.
      seed: seed of the run.
      manifest: the drawn label budget; needed if a source reads one of its roles.
      config: the method's config as in config.json; messages name its flags.
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

    def _load(self, artifact: Artifact) -> NetState:
        stage = self.recipe.stage(artifact.stage)
        if isinstance(stage, Infer):
            # A `Mean` with `into`: the net that the stage read, with the mean as its batch_stats.
            net = self.load(stage.nets[stage.write.into].init_from)
            names = traverse_util.flatten_dict(net.batch_stats, sep="/")
            stats = traverse_util.unflatten_dict(load_means(self.run_dir, stage.name, names), sep="/")
            return net.replace(batch_stats=mesh_lib.replicate(self.mesh, stats))
        path = self.run_dir / artifact.stage / "nets" / artifact.name
        try:
            return load_net(path, state_lib.abstract_net(stage.nets[artifact.name]), self.mesh)
        except DamagedCheckpoint as error:
            raise InputError(f"{error}; train it again with --redo {artifact.stage}") from error

    def nets(self, stage: Stage | Eval | Maps) -> dict[str, NetState]:
        """Restores the nets of a stage that start from an earlier stage."""
        return {r: self.load(net.init_from) for r, net in stage.nets.items() if isinstance(net.init_from, Artifact)}

    def outside(self, stage: Stage) -> dict[str, ImportedArrays]:
        """Loads the arrays that nets of a stage take from outside the run; raises InputError if they do not fit."""
        return {
            role: take(
                net.init_from,
                state_lib.abstract_net(net),
                self.mesh,
                Backbone.of(net.module, backbone_flag(self.config, stage.name, net.init_from)),
            )
            for role, net in stage.nets.items()
            if isinstance(net.init_from, FromRun | Pretrained)
        }

    def consts(self, stage: Stage | Eval | Maps) -> dict[str, Any]:
        """The constants of a stage, replicated; artifacts are read from the run folder."""
        values = {
            name: load_mean(self.run_dir, value.stage, value.name) if isinstance(value, Artifact) else np.asarray(value)
            for name, value in stage.consts.items()
        }
        return mesh_lib.replicate(self.mesh, values)

    def measure(self, evaluation: Eval, nets: Mapping[str, NetState], *, lower: str | None = None) -> dict[str, Any]:
        """Measures a result or an evaluation of a training stage.

        Args:
          evaluation: what to measure.
          nets: role -> net.
          lower: the flag that a message suggests to lower if memory runs out; default the config's flag of the batch.

        Returns:
          The figures of `summarise` or `summarise_tags`, "images", and for masks "miou_<group>", "miou_at_size" and
          those of `covered`.

        Raises:
          InputError: there is nothing to measure against, or it takes more memory than a device has.
        """
        source = evaluation.source
        if lack := without_truth(source, self.inputs):
            raise InputError(
                f"{source.dataset}/{source.split} {lack}, so {evaluation.name} cannot be measured on it; choose "
                f"another split with --split"
            )
        advice = memory.advice(
            what=f"measuring {evaluation.name} on {source.dataset}/{source.split}",
            batch=source.batch,
            size=source.size,
            lower=lower or memory.evaluation_flag(self.config, source.batch),
            resumes=lower is None,
        )
        with advice:
            arrays = self.measurement(evaluation)(nets, self.consts(evaluation))
        if evaluation.metrics == "tags":
            logits, tags = arrays
            background = self.inputs.reader(source.dataset, source.split).info.background
            return {"images": len(tags), **summarise_tags(logits, tags, self.classes, background)}
        native, at_size = arrays
        figures = summarise(native, self.classes)
        return {
            "images": len(self.inputs.ids(source, evaluation.hidden_truth)),
            **figures,
            **group_means(figures["per_class"], self.classes, evaluation.groups),
            **covered(native, self.classes),
            "miou_at_size": summarise(at_size, self.classes)["miou"],
        }

    def measurement(self, evaluation: Eval) -> MaskEvaluation | TagEvaluation:
        """The compiled measurement. Cached by everything that it depends on, so not by nets and constants."""
        key = _compiled_from(evaluation)
        if key not in self._measurements:
            rows = self.inputs.open(evaluation.source, evaluation.hidden_truth)
            shared = {"mesh": self.mesh, "threads": self.runtime.workers}
            if evaluation.metrics == "tags":
                measurement = TagEvaluation(rows, evaluation, **shared)
            else:
                stored = None if evaluation.inferred is None else self.inputs.field(evaluation.inferred)
                measurement = MaskEvaluation(rows, evaluation, classes=len(self.classes), stored=stored, **shared)
            self._measurements[key] = measurement
        return self._measurements[key]

    def steps(self, stage: Train) -> int:
        """Optimizer steps, with `Epochs` resolved."""
        if not isinstance(stage.steps, Epochs):
            return stage.steps
        source = self.recipe.counted(stage)
        return stage.steps.resolve(self.epoch_length(source), source.batch)

    def planned_steps(self, stage: Stage) -> int | Epochs | None:
        """The `steps` that are known before any stage ran, else `Epochs`; None for a stage that does not train."""
        if not isinstance(stage, Train):
            return None
        known = not isinstance(stage.steps, Epochs) or self.inputs.known(self.recipe.counted(stage))
        return self.steps(stage) if known else stage.steps

    def epoch_length(self, source: Source) -> int:
        """Draws per epoch of a source in training."""
        ids = self.inputs.ids(source)
        reader = self.inputs.reader(source.dataset, source.split)
        return Order(len(ids), 0, draws(source, reader, [reader.index[i] for i in ids])).epoch_length
