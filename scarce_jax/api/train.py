"""Running a config's recipe in a run folder."""

from __future__ import annotations

import logging
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from scarce_jax import methods
from scarce_jax.api.configs import default_workdir, from_json, resolve, to_json, use_compilation_cache
from scarce_jax.api.provenance import git_revision, versions
from scarce_jax.data.builders import is_generated, is_prepared, load_info, prepare
from scarce_jax.ops.warp import MEAN, STD
from scarce_jax.training import mesh as mesh_lib
from scarce_jax.training.recipe import Runtime
from scarce_jax.training.run import run

log = logging.getLogger("scarce_jax")


def train(
    config: Any,
    workdir: str | os.PathLike | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
    redo: str | None = None,
    reuse: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    stem: str | None = None,
) -> dict[str, Any]:
    """Runs a config's recipe in a run folder, from where an earlier call stopped.

    Args:
      config: a method's Config.
      workdir: the run folder; default `runs/<stem>-<hash of the config>`.
      data_dir: where datasets are prepared; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      redo: a stage to do again, with all that read from it.
      reuse: another run folder, or several, whose equal finished stages are taken over.
      stem: names the default run folder.

    Returns:
      The content of summary.json.

    Raises:
      InputError: something given is wrong; nothing is lost or half-written.
      scarce_jax.errors.Interrupted: SIGTERM or Ctrl-C, after the checkpoint was saved.
    """
    method = methods.name_of(config)
    set_xla_flags(config.runtime)
    use_compilation_cache()
    config = from_json(method, to_json(resolve(config)))
    data_dir = None if data_dir is None else os.fspath(data_dir)
    if is_generated(config.dataset) and not is_prepared(config.dataset, data_dir):
        log.info("preparing the dataset %s (once)", config.dataset)
        if mesh_lib.is_primary():
            prepare(config.dataset, data_dir)
    # Every process comes here: a later one may have found the dataset prepared by then.
    mesh_lib.barrier("prepared")
    info = load_info(config.dataset, data_dir)
    recipe = methods.by_name(method).recipe(config, info)
    header = {
        "method": method,
        "config": to_json(config),
        "normalisation": {"mean": [float(x) for x in MEAN], "std": [float(x) for x in STD]},
        "versions": versions(),
        "git_revision": git_revision(),
        "command": sys.argv,
    }
    others = [reuse] if isinstance(reuse, str | os.PathLike) else reuse or []
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
        reuse=[pathlib.Path(other) for other in others],
    )


def set_xla_flags(runtime: Runtime) -> None:
    """Asks for deterministic kernels where `runtime` does; XLA reads it only when the first device is used."""
    flag, given = "--xla_gpu_deterministic_ops=true", os.environ.get("XLA_FLAGS", "")
    if runtime.deterministic and flag not in given:
        os.environ["XLA_FLAGS"] = f"{given} {flag}".strip()
