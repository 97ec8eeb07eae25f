"""The whole recipe of a method, and what its stages read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scarce_jax.recipe.sources import Artifact, Chosen, Read, Source
from scarce_jax.recipe.stages import Eval, Maps, Stage, Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of summary.json, computed on the host from the means of stages.

    Attributes:
      reads: name -> an Artifact of a `Mean`.
      make: `({name: array}) -> {"columns": [...], "rows": [[...], ...], ...}` of JSON values.
    """

    reads: Mapping[str, Artifact]
    make: Callable[[Mapping[str, np.ndarray]], dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The result of a method's `recipe(config, info)`. The first entry of `results` is the default of all commands.

    `predict` takes the names of `results` and of `maps`, so no name is in both.
    """

    stages: tuple[Stage, ...]
    results: Mapping[str, Eval]
    tables: Mapping[str, Table] = dataclasses.field(default_factory=dict)
    maps: Mapping[str, Maps] = dataclasses.field(default_factory=dict)

    def stage(self, name: str) -> Stage:
        return {stage.name: stage for stage in self.stages}[name]

    def counted(self, stage: Train) -> Source:
        """The source whose passes the `Epochs` of a stage count."""
        counted = stage if stage.steps.of is None else self.stage(stage.steps.of)
        return next(iter(counted.sources.values()))


def sources(stage: Stage | Eval | Maps) -> dict[str, Source]:
    """Returns the sources of a stage by name; a single source has the name of its stage."""
    return dict(stage.sources) if isinstance(stage, Train) else {stage.name: stage.source}


def reads(stage: Stage | Eval | Maps) -> list[Artifact]:
    """Lists the artifacts of earlier stages that a stage needs, without repeats, in a fixed order."""
    artifacts = [net.init_from for net in stage.nets.values() if isinstance(net.init_from, Artifact)]
    for source in sources(stage).values():
        for field in (*source.id_parts, *source.fields, *source.labels):
            if isinstance(field, Read | Chosen):
                artifacts.append(field.artifact)
            elif isinstance(field, Artifact):
                artifacts.append(field)
    artifacts += [value for value in stage.consts.values() if isinstance(value, Artifact)]
    if isinstance(stage, Eval) and stage.inferred is not None:
        artifacts.append(stage.inferred.artifact if isinstance(stage.inferred, Read) else stage.inferred)
    return list(dict.fromkeys(artifacts))
