"""Runs a config for every combination of some fields' values, with a table and a plot of the results."""

from __future__ import annotations

import gc
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.builders import is_generated, load_info
from scarce_jax.data.files import write_json
from scarce_jax.dry_run import check_data, dry_run
from scarce_jax.errors import InputError
from scarce_jax.runs import train
from scarce_jax.runtime import set_xla_flags
from scarce_jax.sweep.axes import Axis, Combination, combine
from scarce_jax.sweep.plot import draw
from scarce_jax.sweep.table import make_table
from scarce_jax.training.lock import held

log = logging.getLogger("scarce_jax")


def sweep(
    config: Any,
    over: Mapping[str, Sequence[Any] | None],
    workdir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Runs a config once for every combination of values, and tabulates the results.

    Every combination has a run folder in `workdir`, and reuses equal finished stages of the other runs. The same call
    continues a sweep that stopped: it skips finished runs, and tries failed ones again. If a run fails with an
    InputError, the other runs are done nevertheless; a warning says at once which cannot have the images they read.
    `workdir/table.json` is written after every run, and `workdir/curve.png` at the end.

    Args:
      config: a method's Config.
      over: the swept fields and their values. `{"budget.fine": [10, 25], "seed": [0, 1]}` is the product of two axes;
        `{"budget.fine+detailer.steps": [(10, 1000), (500, 9000)]}` changes two fields together; `{"paper.table_1":
        None}` takes every row of that table of `config.paper`, and `[10, 25]` the rows whose first value is 10 or 25
        (`sweep.paper`). Runs that differ only in the axis with `seed` are repeats: one row of the table, with mean and
        spread.
      workdir: the folder of the sweep.
      data_dir, mesh: as in `train`.

    Returns:
      The content of table.json, see `sweep.table.make_table`; "failed" maps each failed run to the reason.

    Raises:
      InputError: before anything starts, if an axis or a combination is wrong, a dataset is not prepared, or another
        sweep runs in the folder.
      scarce_jax.errors.Interrupted: SIGTERM or Ctrl-C, after the checkpoint was saved.
    """
    workdir = pathlib.Path(workdir)
    set_xla_flags(config.runtime)
    axes, runs, _ = plan(config, over, data_dir, check=False)
    for dataset in {run.config.dataset for run in runs}:
        if not is_generated(dataset):
            load_info(dataset, None if data_dir is None else os.fspath(data_dir))
    for run in runs:
        try:
            check_data(run.config, data_dir)
        except InputError as error:
            log.warning("%s will be left out: %s", run.name, error)
    summaries: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, str] = {}
    table = {}
    with held(workdir):
        # Finished runs come first, so that the table soon has all of them again.
        order = sorted(runs, key=lambda run: not (workdir / run.name / "summary.json").exists())
        for number, run in enumerate(order, start=1):
            log.info("run %d of %d: %s", number, len(order), run.name)
            try:
                others = [p.parent for p in sorted(workdir.glob("*/config.json")) if p.parent.name != run.name]
                summaries[run.name] = train(run.config, workdir / run.name, data_dir=data_dir, reuse=others, mesh=mesh)
            except InputError as error:
                # Perhaps not all processes failed; if some went on, they would wait for each other forever.
                if jax.process_count() > 1:
                    raise
                failed[run.name] = str(error)
                log.error("%s failed: %s", run.name, error)
            # A Session and its caches form a reference cycle, which keeps the run's arrays until collection.
            gc.collect()
            table = make_table(config, axes, runs, summaries, failed)
            if mesh_lib.is_primary():
                write_json(workdir / "table.json", table)
        if mesh_lib.is_primary():
            draw(table, workdir / "curve.png")
    return table


def plan(
    config: Any,
    over: Mapping[str, Sequence[Any] | None],
    data_dir: str | os.PathLike | None = None,
    *,
    check: bool = True,
) -> tuple[list[Axis], list[Combination], list[dict[str, Any]]]:
    """The axes and runs of a sweep, and the `dry_run` of each run.

    Args:
      check: also look whether prepared datasets have what each run reads (`dry_run.check_data`).

    Raises:
      InputError: an axis or a combination is wrong, or a run lacks images or labels.
    """
    axes, runs = combine(config, over)
    described = []
    for run in runs:
        try:
            described.append(dry_run(run.config, data_dir, check=check))
        except InputError as error:
            raise InputError(f"{run.name}: {error}") from error
    return axes, runs, described
