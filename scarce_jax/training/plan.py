"""The stages in a run folder: which are done, which differ from the recipe, and reusing those of other runs."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Collection, Sequence
from typing import Any

from scarce_jax.data.files import read_json
from scarce_jax.errors import InputError
from scarce_jax.recipe import Eval, FromRun, Pretrained, Recipe, Stage, Train, reads, sources
from scarce_jax.training import fingerprint as fp
from scarce_jax.training.labels import check_labels, without_truth
from scarce_jax.training.log import complete_lines, replace_lines
from scarce_jax.training.origins import content
from scarce_jax.training.session import Session
from scarce_jax.training.state import check_groups, check_origins

log = logging.getLogger("scarce_jax")


class Plan:
    """The descriptions and fingerprints of a recipe's stages, and the state of each stage in the run folder."""

    def __init__(self, session: Session):
        self.session, self.run_dir = session, session.run_dir
        recipe = session.recipe
        parts = (*recipe.stages, *recipe.results.values())
        used = {s.dataset: s.split for x in parts for s in sources(x).values() if s.split is not None}
        self.versions = {name: session.inputs.reader(name, split).version for name, split in used.items()}
        self.steps = {stage.name: session.planned_steps(stage) for stage in recipe.stages}
        self.descriptions: dict[str, dict] = {}
        self.fingerprints: dict[str, str] = {}
        for stage in recipe.stages:
            self.descriptions[stage.name] = self.describe(stage)
            self.fingerprints[stage.name] = fp.fingerprint(self.descriptions[stage.name])

    def describe(self, stage: Stage | Eval) -> dict[str, Any]:
        return fp.describe(
            stage,
            steps=self.steps.get(stage.name),
            seed=self.session.seed,
            versions=self.versions,
            roles=self.session.manifest.role_hashes,
            fingerprints=self.fingerprints,
            origins={
                role: self._origin(stage.name, role, net.init_from)
                for role, net in stage.nets.items()
                if isinstance(net.init_from, FromRun | Pretrained)
            },
        )

    def _origin(self, stage: str, role: str, origin: FromRun | Pretrained) -> dict[str, Any]:
        """The content of an origin. If it is gone, the content that the finished stage recorded for the same origin."""
        try:
            return content(origin)
        except InputError:
            recorded = (self.done(stage) or {}).get("init_from", {}).get(role)
            if recorded is None or recorded["source"] != str(origin):
                raise
            return recorded["content"]

    def done(self, stage: str) -> dict[str, Any] | None:
        """Content of the stage's DONE; None if the stage is not finished."""
        path = self.run_dir / stage / "DONE"
        return read_json(path) if path.exists() else None

    def check(self, again: Collection[str]) -> None:
        """Checks that every stage can run in this folder.

        Args:
          again: names of the stages that `--redo` runs again.

        Raises:
          InputError: a stage that is not in `again` was begun with other settings, a net has other parameters than what
            it starts from or than the groups of its optimizer, a source has no image
            or no label that says anything, or its images cannot be weighted.
        """
        check_origins(self.session.recipe)
        check_groups(self.session.recipe)
        self._check_sources(again)
        for stage, description in self.descriptions.items():
            path = self.run_dir / stage / "stage.json"
            if stage in again or not path.exists():
                continue
            lines = fp.difference(read_json(path), json.loads(json.dumps(description)))
            if lines:
                shown = "\n  ".join(lines[:12])
                raise InputError(
                    f"{self.run_dir}: stage {stage} was begun with other settings (before -> now):\n  {shown}\n"
                    f"choose another --workdir, or run the stage again with --redo {stage}"
                )
        for stage in self.session.recipe.stages:
            if stage.name in again or self.done(stage.name) is None:
                self.session.outside(stage)

    def _check_sources(self, again: Collection[str]) -> None:
        """Raises InputError if a source has no image, its labels say nothing, or its images cannot be weighted."""
        for stage in self.session.recipe.stages:
            if self.done(stage.name) is None or stage.name in again:
                check_labels(stage, self.session.inputs)
            if not isinstance(stage, Train):
                continue
            for source in stage.sources.values():
                # The ids of records may depend on what is not inferred yet.
                known = all(isinstance(part, str) for part in source.id_parts)
                if known and (source.part is not None or source.weight is not None):
                    self.session.epoch_length(source)

    def results(self) -> dict[str, Eval]:
        """The results of the recipe without those that measure on a split without a labelled pixel; warns of these."""
        results, missing = {}, {}
        for name, result in self.session.recipe.results.items():
            if result.source.split is None:
                log.info("%s: not measured, because --eval-split is None", name)
            elif lack := without_truth(result.source, self.session.inputs):
                missing.setdefault((result.source.split, lack), []).append(name)
            else:
                results[name] = result
        for (split, lack), names in missing.items():
            log.warning("not measured, because split %s %s: %s", split, lack, ", ".join(names))
        return results


def with_dependents(recipe: Recipe, stage: str) -> set[str]:
    """The names of a stage and of all stages that depend on it; raises InputError if there is no such stage."""
    names = [s.name for s in recipe.stages]
    if stage not in names:
        raise InputError(f"--redo {stage}: no such stage; this recipe has {', '.join(names)}")
    gone = {stage}
    for other in recipe.stages:
        if any(artifact.stage in gone for artifact in reads(other)):
            gone.add(other.name)
    return gone


def forget(plan: Plan, stages: Collection[str]) -> None:
    """Deletes stages, and the summary of the run."""
    for name in stages:
        shutil.rmtree(plan.run_dir / name, ignore_errors=True)
    (plan.run_dir / "summary.json").unlink(missing_ok=True)


def take_over(plan: Plan, others: Sequence[pathlib.Path]) -> None:
    """Hard-links finished stages of other runs that have equal fingerprints, and copies their lines of metrics."""
    for other, (stage, fingerprint) in itertools.product(others, plan.fingerprints.items()):
        done = other / stage / "DONE"
        if plan.done(stage) or not done.exists() or read_json(done)["fingerprint"] != fingerprint:
            continue
        aside, target = plan.run_dir / f".reuse-{stage}", plan.run_dir / stage
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(other / stage, aside, copy_function=_link)
        metrics = plan.run_dir / "metrics.jsonl"
        lines = [line for line, entry in complete_lines(metrics) if entry["stage"] != stage]
        lines += [line for line, entry in complete_lines(other / "metrics.jsonl") if entry["stage"] == stage]
        replace_lines(metrics, lines)
        aside.rename(target)
        log.info("%s: reused from %s", stage, other)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # On another file system.
        shutil.copy2(source, target)
