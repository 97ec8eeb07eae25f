"""The stages in a run folder: which are done, which differ from the recipe, and reusing those of other runs."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pathlib
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from scarce_jax import __version__
from scarce_jax.data.files import ASIDE, sync
from scarce_jax.errors import InputError
from scarce_jax.recipe import Eval, FromRun, Pretrained, Recipe, Stage, Train, reads, sources
from scarce_jax.training import fingerprint as fp
from scarce_jax.training import folder
from scarce_jax.training.labels import check_labels, without_truth
from scarce_jax.training.lock import clear
from scarce_jax.training.log import complete_lines, replace_lines
from scarce_jax.training.origins import content
from scarce_jax.training.session import Session
from scarce_jax.training.state import check_groups, check_origins

log = logging.getLogger("scarce_jax")


class Plan:
    """The descriptions and fingerprints of a recipe's stages, and the state of each stage in the run folder.

    Args:
      session: the recipe in its run folder.
      recorded: content of config.json. What else decides a stage's result (versions of the datasets, number of steps,
        content of origins) is then what the run folder records, and nothing outside it is read.

    Raises:
      InputError: a dataset is not prepared, an origin is gone, or config.json lacks the version of a dataset.
    """

    def __init__(self, session: Session, recorded: Mapping[str, Any] | None = None):
        self.session, self.run_dir, self._recorded = session, session.run_dir, recorded
        recipe = session.recipe
        parts = (*recipe.stages, *recipe.results.values())
        used = {s.dataset: s.split for x in parts for s in sources(x).values() if s.split is not None}
        if recorded is None:
            self.versions = {name: session.inputs.reader(name, split).version for name, split in used.items()}
            self.steps = {stage.name: session.planned_steps(stage) for stage in recipe.stages}
        else:
            self.versions = recorded["dataset"]["versions"]
            if missing := sorted(used.keys() - self.versions.keys()):
                raise InputError(
                    f"{self.run_dir / folder.CONFIG}: has no version of dataset {missing[0]!r}, which it reads; "
                    f"restore the file"
                )
            # Steps that depend on what an earlier stage leaves are recorded as null.
            self.steps = {
                stage.name: stage.steps if (known := recorded["steps"].get(stage.name)) is None else known
                for stage in recipe.stages
                if isinstance(stage, Train)
            }
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

    def _origin(self, stage: str, role: str, origin: FromRun | Pretrained) -> dict[str, Any] | None:
        """The content of an origin. If it is gone, the content that the finished stage recorded for the same origin."""
        if self._recorded is not None:
            return self._recorded_origin(stage, role, origin)
        try:
            return content(origin)
        except InputError:
            recorded = self._recorded_origin(stage, role, origin)
            if recorded is None:
                raise
            return recorded

    def _recorded_origin(self, stage: str, role: str, origin: FromRun | Pretrained) -> dict[str, Any] | None:
        recorded = (self.done(stage) or {}).get("init_from", {}).get(role, {})
        return recorded.get("content") if recorded.get("source") == str(origin) else None

    def done(self, stage: str) -> dict[str, Any] | None:
        """Content of the stage's DONE; None if the stage is not finished. Raises InputError if it is damaged."""
        return folder.read_done(self.run_dir, stage)

    def check(self, again: Collection[str]) -> None:
        """Checks that every stage can run in this folder.

        Args:
          again: names of the stages that `--redo` runs again.

        Raises:
          InputError: a stage that is not in `again` was begun with other settings, or what it left is damaged; a net
            has other parameters than what it starts from or than the groups of its optimizer, a source has no image or
            no label that says anything, or its images cannot be weighted.
        """
        check_origins(self.session.recipe)
        check_groups(self.session.recipe)
        self._check_sources(again)
        for stage in self.descriptions:
            if stage in again or not folder.begun(self.run_dir, stage):
                continue
            lines = self._differences(stage)
            if lines:
                raise InputError(
                    f"{self.run_dir}: stage {stage} was begun with other settings (before -> now):\n  {_some(lines)}\n"
                    f"choose another --workdir, or run the stage again with --redo {stage}"
                )
            if (done := self.done(stage)) is not None:
                folder.check_files(self.run_dir, stage, done)
        for stage in self.session.recipe.stages:
            if stage.name in again or self.done(stage.name) is None:
                self.session.outside(stage)

    def check_recorded(self) -> None:
        """Checks that config.json describes the stages that are finished.

        Raises:
          InputError: it does not, although this version of the library wrote it; or the DONE or stage.json of a stage
            is missing or damaged.
        """
        for stage in self.descriptions:
            if self.done(stage) is None or not (lines := self._differences(stage)):
                continue
            # The manifest has a part in descriptions too.
            path = self.run_dir / (folder.MANIFEST if lines[0].startswith("roles.") else folder.CONFIG)
            made_by = self._recorded["versions"].get("scarce-jax")
            if made_by != __version__:
                log.warning(
                    "%s: stage %s was trained with scarce-jax %s, and is another one in this version (%s): %s",
                    path, stage, made_by, __version__, "; ".join(lines[:3]),
                )  # fmt: skip
                continue
            raise InputError(
                f"{path}: is not what stage {stage} was trained with (stage.json -> {path.name}):\n  {_some(lines)}\n"
                f"restore the file, or run the train command again, which writes it anew"
            )

    def _differences(self, stage: str) -> list[str]:
        """The differences of a stage's stage.json and the recipe, as lines."""
        return fp.difference(
            folder.read_description(self.run_dir, stage), json.loads(json.dumps(self.descriptions[stage]))
        )

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


def _some(lines: Sequence[str]) -> str:
    return "\n  ".join(lines[:12])


def forget(plan: Plan, stages: Collection[str]) -> None:
    """Deletes stages, and the summary of the run. A kill leaves each stage either whole or gone."""
    (plan.run_dir / folder.SUMMARY).unlink(missing_ok=True)
    for name in stages:
        if (plan.run_dir / name).exists():
            (plan.run_dir / name).rename(_aside(plan, name))
    if plan.run_dir.is_dir():
        sync(plan.run_dir)
    clear(plan.run_dir)


def _aside(plan: Plan, stage: str) -> pathlib.Path:
    """A new name for a folder that is being deleted or made; `clear` deletes what a kill leaves."""
    return plan.run_dir / f".{stage}.{secrets.token_hex(4)}{ASIDE}"


def take_over(plan: Plan, others: Sequence[pathlib.Path]) -> None:
    """Hard-links finished stages of other runs that have equal fingerprints, and copies their lines of metrics.

    A stage that is damaged in the other run is left there, with a warning.
    """
    for other, (stage, fingerprint) in itertools.product(others, plan.fingerprints.items()):
        if plan.done(stage):
            continue
        try:
            done = folder.read_done(other, stage)
            if done is None or done["fingerprint"] != fingerprint:
                continue
            folder.refuse_links(other / stage)
            folder.check_files(other, stage, done)
        except InputError as error:
            log.warning("%s: not reused: %s", stage, error)
            continue
        aside, target = _aside(plan, stage), plan.run_dir / stage
        # Before the copy, which it would delete too.
        if target.exists():
            forget(plan, [stage])
        try:
            shutil.copytree(other / stage, aside, copy_function=_link)
        except (OSError, shutil.Error) as error:
            shutil.rmtree(aside, ignore_errors=True)
            if folder.read_done(other, stage) is not None:
                raise
            raise InputError(
                f"--reuse {other}: stage {stage} was deleted while it was copied; another command does it again there, "
                f"wait until that ends"
            ) from error
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
