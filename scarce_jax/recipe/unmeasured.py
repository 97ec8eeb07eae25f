"""Recipes of runs that measure nothing, because their config names no evaluation split."""

from __future__ import annotations

import dataclasses

from scarce_jax.errors import InputError
from scarce_jax.recipe.recipe import Recipe, reads, sources
from scarce_jax.recipe.stages import Eval, Maps, Stage, Train


def without_measurements(recipe: Recipe) -> Recipe:
    """The recipe without what reads images of no split: measurements, stages, and what depends on these stages.

    Results stay if they predict, so that their nets can be used. A recipe whose sources all have a split is unchanged.

    Raises:
      InputError: a measurement was to choose the net.
    """
    stages: list[Stage] = []
    gone: set[str] = set()

    def lost(part: Stage | Eval | Maps) -> bool:
        return any(artifact.stage in gone for artifact in reads(part))

    for stage in recipe.stages:
        if any(source.split is None for source in sources(stage).values()) or lost(stage):
            gone.add(stage.name)
            continue
        if isinstance(stage, Train):
            kept = tuple(evaluation for evaluation in stage.evals if evaluation.source.split is not None)
            choosing = [evaluation.keep_best for evaluation in stage.evals if evaluation.keep_best]
            if choosing and len(kept) < len(stage.evals):
                raise InputError(
                    f"--{stage.name.replace('_', '-')}.keep-best {choosing[0]}: expected None while --eval-split is "
                    f"None, because nothing is measured"
                )
            stage = dataclasses.replace(stage, evals=kept)
        stages.append(stage)
    results = {name: result for name, result in recipe.results.items() if not lost(result)}
    tables = {
        name: table
        for name, table in recipe.tables.items()
        if not any(artifact.stage in gone for artifact in table.reads.values())
    }
    maps = {name: part for name, part in recipe.maps.items() if not lost(part)}
    return Recipe(stages=tuple(stages), results=results, tables=tables, maps=maps)
