"""Everything the command line does, as function calls: train, dry_run, evaluate, load."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import pathlib
import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax
import pydantic

from scarce_jax import methods
from scarce_jax.data.budget import Budget, Manifest
from scarce_jax.data.builders import BUILDERS, is_prepared, load_info, prepare
from scarce_jax.data.schema import KNOWN, DatasetInfo
from scarce_jax.errors import InputError
from scarce_jax.evaluation.predict import Predictor
from scarce_jax.ops.warp import MEAN, STD
from scarce_jax.training import mesh as mesh_lib
from scarce_jax.training import state as state_lib
from scarce_jax.training.fingerprint import plain
from scarce_jax.training.plan import read_json
from scarce_jax.training.recipe import Artifact, Epochs, Eval, Net, Recipe, Runtime, Source, Stage, Train, sources
from scarce_jax.training.run import run
from scarce_jax.training.session import Session

log = logging.getLogger("scarce_jax")

VERSIONED = (
    "scarce-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
)


def use_compilation_cache() -> None:
    """Keeps compiled programs between processes, unless the user has set JAX_COMPILATION_CACHE_DIR."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(base / "scarce_jax" / "xla"))


def resolve(config: Any) -> Any:
    """The config with "auto" values settled for the devices at hand."""
    if config.dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        config = dataclasses.replace(config, dtype=dtype)
    return config


def default_workdir(config: Any, stem: str | None = None) -> pathlib.Path:
    """`runs/<stem>-<8 hex of the config>`; `runtime`, `compare` and `paper`, which change no result, are left out."""
    values = {k: v for k, v in to_json(config).items() if k not in ("runtime", "compare", "paper")}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return pathlib.Path("runs") / f"{stem or methods.name_of(config)}-{digest}"


def to_json(config: Any) -> dict[str, Any]:
    """A config as JSON values."""
    return pydantic.TypeAdapter(type(config)).dump_python(config, mode="json")


def from_json(method: str, values: dict[str, Any]) -> Any:
    """The inverse of `to_json`; raises InputError naming the field that does not fit."""
    try:
        return pydantic.TypeAdapter(methods.by_name(method).Config).validate_python(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"config field {field}: {first['msg']}, found {first['input']!r}") from error


def train(
    config: Any,
    workdir: str | os.PathLike | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
    redo: str | None = None,
    reuse: str | os.PathLike | None = None,
    stem: str | None = None,
) -> dict[str, Any]:
    """Runs a config's recipe in a run folder, from where an earlier call stopped.

    Args:
      config: a method's Config.
      workdir: the run folder; default `runs/<stem>-<hash of the config>`.
      data_dir: where datasets are prepared; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      redo: a stage to do again, with all that read from it.
      reuse: another run folder whose equal finished stages are taken over.
      stem: names the default run folder.

    Returns:
      The content of summary.json.

    Raises:
      InputError: something given is wrong; nothing is lost or half-written.
      scarce_jax.errors.Interrupted: SIGTERM or Ctrl-C, after the checkpoint was saved.
    """
    method = methods.name_of(config)
    if config.runtime.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    use_compilation_cache()
    config = from_json(method, to_json(resolve(config)))
    data_dir = None if data_dir is None else os.fspath(data_dir)
    if config.dataset == "scenes" and not is_prepared("scenes", data_dir):
        log.info("preparing the dataset scenes (once)")
        if mesh_lib.is_primary():
            prepare("scenes", data_dir)
    # Every process comes here: a later one may have found the dataset prepared by then.
    mesh_lib.barrier("prepared")
    info = load_info(config.dataset, data_dir)
    recipe = methods.by_name(method).recipe(config, info)
    header = {
        "method": method,
        "config": to_json(config),
        "normalisation": {"mean": [float(x) for x in MEAN], "std": [float(x) for x in STD]},
        "versions": {"python": sys.version.split()[0], **_versions()},
        "git_revision": _git_revision(),
        "command": sys.argv,
    }
    return run(
        recipe,
        info,
        run_dir=pathlib.Path(workdir if workdir is not None else default_workdir(config, stem)),
        data_dir=data_dir,
        header=header,
        seed=config.seed,
        budget=config.budget,
        train_split=config.train_split,
        runtime=config.runtime,
        redo=redo,
        reuse=None if reuse is None else pathlib.Path(reuse),
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git_revision() -> str | None:
    """The library's revision, where it runs from a checkout; "-dirty" where that was changed."""
    root = pathlib.Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


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


def open_run(run_dir: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> tuple[Session, DatasetInfo, Any]:
    """A finished run's recipe on the devices at hand, its dataset's facts and its config.

    Raises:
      InputError: not a run folder, or one of another format.
    """
    run_dir = pathlib.Path(run_dir)
    if not (run_dir / "config.json").exists():
        raise InputError(f"{run_dir}: not a run folder (it has no config.json); expected what `scarce-jax train` made")
    facts = read_json(run_dir / "config.json")
    if facts.get("format") != 1:
        raise InputError(f"{run_dir}/config.json: format {facts.get('format')!r}, expected 1; update scarce-jax")
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
    for net in item.nets.values():
        if not (run_dir / net.init_from.stage / "DONE").exists():
            raise InputError(
                f"{run_dir}: stage {net.init_from.stage}, which result {name} needs, is not finished; "
                f"run the train command again"
            )
    return name, item


def evaluate(
    run_dir: str | os.PathLike,
    result: str | None = None,
    *,
    split: str | None = None,
    data_dir: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Restores what a result needs, on whatever devices are here, and measures it.

    Args:
      result: its name; default the recipe's first.
      split: default the split that the config measures on.

    Returns:
      {"run", "result", "dataset", "split", "images", "miou", "mean_accuracy", "pixel_accuracy", "per_class",
      "confusion", "devices", "miou_at_size"}: figures at the truth's native size, mIoU in 0..1.

    Raises:
      InputError: no such run, result, split or dataset, or a damaged checkpoint.
    """
    session, info, _ = open_run(run_dir, data_dir)
    name, item = choose_result(session.recipe, session.run_dir, result)
    if split is not None:
        item = dataclasses.replace(item, source=dataclasses.replace(item.source, split=split))
    prepared = session.inputs.reader(item.source.dataset, item.source.split).info
    if prepared.classes != info.classes:
        raise InputError(
            f"dataset {info.name}: prepared with {len(prepared.classes)} classes {prepared.classes[:3]}..., but the "
            f"run was trained on {len(info.classes)} {info.classes[:3]}...; prepare the dataset that it was trained on"
        )
    figures = session.measure(item, session.nets(item))
    return {
        "run": str(run_dir),
        "result": name,
        "dataset": item.source.dataset,
        "split": item.source.split,
        **figures,
        "devices": session.mesh.size,
    }


def load(run_dir: str | os.PathLike, result: str | None = None) -> Predictor:
    """A predictor from a run folder alone; see `Predictor`.

    Raises:
      InputError: no such run or result, or a damaged checkpoint.
    """
    session, info, config = open_run(run_dir)
    name, item = choose_result(session.recipe, session.run_dir, result)

    def needs_coarse(item: Eval) -> bool:
        return "coarse" in item.source.fields

    return Predictor(
        name=name,
        predict=item.predict,
        transform=item.source.transform,
        size=item.source.size,
        needs_coarse=needs_coarse(item),
        composite=item.composite,
        nets=session.nets(item),
        consts=session.consts(item),
        classes=info.classes,
        palette=info.palette,
        native_ids=info.native_ids,
        config=config,
        without_coarse=[n for n, other in session.recipe.results.items() if not needs_coarse(other)],
        batch=item.source.batch,
        mesh=session.mesh,
    )
