"""Recipes of runs that want some of the results only."""

from __future__ import annotations

from collections.abc import Collection

from scarce_jax.errors import InputError, nearest
from scarce_jax.recipe.recipe import Recipe, reads
from scarce_jax.recipe.stages import Epochs, Stage, Train


def with_results(recipe: Recipe, names: Collection[str]) -> Recipe:
    """The recipe with these results and tables, and the stages that they need.

    Tables and maps are also kept if these stages leave all that they are made from.

    Raises:
      InputError: the recipe has no result or table of one of these names.
    """
    for name in names:
        if name not in recipe.results and name not in recipe.tables:
            known = (*recipe.results, *recipe.tables)
            raise InputError(
                f"--results {name}: no such result or table{nearest(name, known)}; it has {', '.join(known)}"
            )
    results = {name: result for name, result in recipe.results.items() if name in names}
    needed = {artifact.stage for result in results.values() for artifact in reads(result)}
    needed |= {a.stage for name, table in recipe.tables.items() if name in names for a in table.reads.values()}
    # A stage reads of earlier ones.
    for stage in reversed(recipe.stages):
        if stage.name in needed:
            needed |= _read_by(stage)
    stages = tuple(stage for stage in recipe.stages if stage.name in needed)
    tables = {name: table for name, table in recipe.tables.items() if {a.stage for a in table.reads.values()} <= needed}
    maps = {name: part for name, part in recipe.maps.items() if {a.stage for a in reads(part)} <= needed}
    return Recipe(stages=stages, results=results, tables=tables, maps=maps)


def _read_by(stage: Stage) -> set[str]:
    """The stages without which a stage cannot run: what it and its measurements read, and whose length it has."""
    if not isinstance(stage, Train):
        return {artifact.stage for artifact in reads(stage)}
    read = {artifact.stage for part in (stage, *stage.evals) for artifact in reads(part)}
    return read | ({stage.steps.of} if isinstance(stage.steps, Epochs) and stage.steps.of else set())
