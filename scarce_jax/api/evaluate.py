"""Finished runs: opened, measured, and loaded to predict."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from scarce_jax import methods
from scarce_jax.api.configs import from_json, use_compilation_cache
from scarce_jax.data.budget import Manifest
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.evaluation.predict import Predictor
from scarce_jax.evaluation.views import Views
from scarce_jax.training import mesh as mesh_lib
from scarce_jax.training.plan import read_json
from scarce_jax.training.recipe import Eval, NetState, Recipe, Runtime, reads
from scarce_jax.training.session import Session


def read_facts(run_dir: pathlib.Path) -> dict[str, Any]:
    """The content of a run's config.json.

    Raises:
      InputError: not a run folder, or one of another format.
    """
    if not (run_dir / "config.json").exists():
        raise InputError(f"{run_dir}: not a run folder (it has no config.json); expected what `scarce-jax train` made")
    facts = read_json(run_dir / "config.json")
    if facts.get("format") != 1:
        raise InputError(f"{run_dir}/config.json: format {facts.get('format')!r}, expected 1; update scarce-jax")
    return facts


def open_run(run_dir: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> tuple[Session, DatasetInfo, Any]:
    """A finished run's recipe on the devices at hand, its dataset's facts and its config.

    Raises:
      InputError: not a run folder, or one of another format.
    """
    run_dir = pathlib.Path(run_dir)
    facts = read_facts(run_dir)
    config = from_json(facts["method"], facts["config"])
    info = DatasetInfo(
        name=facts["dataset"]["name"],
        classes=tuple(facts["classes"]),
        palette=tuple(tuple(colour) for colour in facts["palette"]),
        background=facts["background"],
        splits={},
        native_ids=None if facts["native_ids"] is None else tuple(facts["native_ids"]),
    )
    use_compilation_cache()
    session = Session(
        recipe=methods.by_name(facts["method"]).recipe(config, info),
        classes=info.classes,
        run_dir=run_dir,
        data_dir=None if data_dir is None else os.fspath(data_dir),
        mesh=mesh_lib.make_mesh(),
        runtime=Runtime(workers=os.cpu_count() or 1),
        seed=config.seed,
        manifest=Manifest.read(run_dir / "manifest.json"),
    )
    return session, info, config


def choose_result(recipe: Recipe, run_dir: pathlib.Path, name: str | None) -> tuple[str, Eval]:
    """The named result, or the first; raises InputError for an unknown name or a stage that is not done."""
    name = name or next(iter(recipe.results))
    if name not in recipe.results:
        raise InputError(f"result {name!r}: this run has {', '.join(recipe.results)}")
    item = recipe.results[name]
    for artifact in reads(item):
        if not (run_dir / artifact.stage / "DONE").exists():
            raise InputError(
                f"{run_dir}: stage {artifact.stage}, which result {name} needs, is not finished; "
                f"run the train command again"
            )
    return name, item


def open_result(
    run_dir: str | os.PathLike,
    result: str | None = None,
    *,
    split: str | None = None,
    data_dir: str | os.PathLike | None = None,
) -> tuple[Session, str, Eval]:
    """A finished run, and one of its results on a split of the dataset that it was trained on.

    Raises:
      InputError: no such run, result, split or dataset.
    """
    session, info, _ = open_run(run_dir, data_dir)
    name, item = choose_result(session.recipe, session.run_dir, result)
    if split is not None and item.given is not None:
        raise InputError(f"result {name}: is masks inferred on {item.source.split}; leave out --split")
    if split is not None:
        item = dataclasses.replace(item, source=dataclasses.replace(item.source, split=split))
    prepared = session.inputs.reader(item.source.dataset, item.source.split).info
    if prepared.classes != info.classes:
        raise InputError(
            f"dataset {info.name}: prepared with {len(prepared.classes)} classes {prepared.classes[:3]}..., but the "
            f"run was trained on {len(info.classes)} {info.classes[:3]}...; prepare the dataset that it was trained on"
        )
    return session, name, item


def evaluate(
    run_dir: str | os.PathLike,
    result: str | None = None,
    *,
    split: str | None = None,
    views: Views | None = None,
    data_dir: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Restores what a result needs, on whatever devices are here, and measures it.

    Args:
      result: its name; default the recipe's first.
      split: default the split that the config measures on.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.

    Returns:
      {"run", "result", "dataset", "split", "images", "miou", "mean_accuracy", "pixel_accuracy", "per_class",
      "confusion", "devices", "miou_at_size"}: figures at the truth's native size, mIoU in 0..1. "views" says which,
      where they are not the image as it is; "miou_<group>" are means over groups of classes, where the method has
      such. Of a result of image tags "map" and "mean_f1" in place of the figures of masks, and the average precision of
      every class.

    Raises:
      InputError: no such run, result, split or dataset, or a damaged checkpoint.
    """
    session, name, item = open_result(run_dir, result, split=split, data_dir=data_dir)
    item = with_views(name, item, views)
    figures = session.measure(item, session.nets(item))
    return {
        "run": str(run_dir),
        "result": name,
        "dataset": item.source.dataset,
        "split": item.source.split,
        **({} if item.views.plain else {"views": dataclasses.asdict(item.views)}),
        **figures,
        "devices": session.mesh.size,
    }


def with_views(name: str, item: Eval, views: Views | None) -> Eval:
    """The result predicted in other views; raises InputError for a result that predicts nothing."""
    if views is None or views == item.views:
        return item
    if item.metrics == "tags":
        raise InputError(f"result {name}: says which classes an image has; it takes no flip, scales, window or CRF")
    if item.predict is None:
        raise InputError(f"result {name}: is a given mask, not a prediction; it takes no flip, scales, window or CRF")
    return dataclasses.replace(item, views=views)


def load(run_dir: str | os.PathLike, result: str | None = None, *, views: Views | None = None) -> Predictor:
    """A predictor from a run folder alone; see `Predictor`.

    Args:
      result: its name; default the recipe's first.
      views: mirrored, scaled or windowed predictions to average, and a CRF; default those of the result.

    Raises:
      InputError: no such run or result, or a damaged checkpoint.
    """
    session, info, config = open_run(run_dir)
    name, item = choose_result(session.recipe, session.run_dir, result)
    item = with_views(name, item, views)
    return predictor(session, info, config, name, item, session.nets(item))


def predictor(
    session: Session, info: DatasetInfo, config: Any, name: str, item: Eval, nets: Mapping[str, NetState]
) -> Predictor:
    """The predictor of a result of this name with these nets."""

    if item.metrics == "tags":
        raise InputError(
            f"result {name}: says which classes an image has, and predicts no masks; `evaluate` measures it, and a run "
            f"of masks can start from its net with init_from"
        )
    if item.given is not None:
        raise InputError(f"result {name}: is masks of {item.source.split} that are there already, and predicts none")

    def needs_coarse(item: Eval) -> bool:
        return "coarse" in item.source.fields

    return Predictor(
        name=name,
        predict=item.predict,
        transform=item.source.transform,
        size=item.source.size,
        needs_coarse=needs_coarse(item),
        composite=item.composite,
        nets=nets,
        consts=session.consts(item),
        classes=info.classes,
        palette=info.palette,
        native_ids=info.native_ids,
        config=config,
        without_coarse=[n for n, other in session.recipe.results.items() if not needs_coarse(other)],
        batch=item.source.batch,
        mesh=session.mesh,
        views=item.views,
    )
