"""Repeats the steps before a loss that was not finite, and looks for what was the first not to be."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.data.files import read_checked_json
from scarce_jax.errors import InputError
from scarce_jax.models.tracing import Tracing, tracing
from scarce_jax.recipe import NetState, Train
from scarce_jax.training import cache
from scarce_jax.training import state as state_lib
from scarce_jax.training.batches import make_batch
from scarce_jax.training.checkpoint import DamagedCheckpoint, load, replicated_like
from scarce_jax.training.finite import FOLDER, REPORT, not_finite
from scarce_jax.training.loop import open_inputs, restored, stored
from scarce_jax.training.packing import packed, unpacked
from scarce_jax.training.session import Session
from scarce_jax.training.step import averages, make_step, step_keys


@dataclasses.dataclass
class Report:
    """What is read of the report of `Finite`: the steps of the state to start from, and of the fault."""

    starts_from: int
    step: int


def replay(session: Session, stage: Train) -> dict[str, Any]:
    """Repeats the steps of a stage from the state that its report names. Nothing is written.

    The input is a pure function of the seed and the step, so on the same kind of devices the steps are those of the
    run.

    Returns:
      "stage"; "starts_from", the step of that state; "step", the first step with a metric, or leaving a parameter or
      batch statistic, that is not finite, and None if all is finite up to the step of the report; and of that step:
      "metrics", name -> value of those that are not finite; "arrays", names of such parameters and statistics;
      "examples", source -> ids of its batch; and the entries of `first_fault`.

    Raises:
      InputError: the stage has no report, or the checkpoint is gone or damaged.
    """
    folder = session.run_dir / stage.name
    report = read_checked_json(folder / FOLDER / REPORT, Report, "run the train command again")
    start, last = report["starts_from"], report["step"]
    steps, mesh = session.steps(stage), session.mesh
    inputs = open_inputs(session, stage, {name: session.inputs.open(x) for name, x in stage.sources.items()})
    state = state_lib.init_state(
        stage.nets, steps, session.seed, stage.drawn_as, session.nets(stage), mesh, session.outside(stage)
    )
    if start:
        like = replicated_like(stored(state, sorted(stage.optimizers)), mesh)
        try:
            state = restored(state, load(folder / "checkpoints" / str(start), like))
        except DamagedCheckpoint as error:
            raise InputError(f"{error}; run the train command again, which starts from what is there") from error
    keys, consts = step_keys(inputs, session.seed, stage.drawn_as, mesh), session.consts(stage)
    cache.fill(stage, inputs, state.nets, mesh, consts)
    state = packed(state, stage.optimizers, mesh)
    step = make_step(stage, steps, inputs, mesh)
    streams = {name: source.batches(start, last) for name, source in inputs.items()}
    for number in range(start, last):
        draws = {name: next(batches) for name, batches in streams.items()}
        # The step donates its state.
        before = jax.tree.map(jnp.copy, state)
        state, on_device = step(state, draws, keys, consts)
        values = {name: float(value) for name, value in jax.device_get(on_device).items()}
        metrics = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
        arrays = not_finite({role: state.nets[role] for role in stage.optimizers})
        if metrics or arrays:
            nets = unpacked(before, mesh).nets
            given = {**consts, "step": before.step, "averages": averages(nets)}
            nets = {role: net.replace(opt_state=()) for role, net in nets.items()}
            batch = {
                name: jax.jit(functools.partial(make_batch, mesh, source.transform))(
                    draws[name], jax.random.fold_in(keys[name], before.step), consts
                )
                for name, source in inputs.items()
            }
            key = jax.random.fold_in(keys["loss"], before.step)
            ids = {name: source.ids(number) for name, source in inputs.items()}
            found = {
                "step": number + 1,
                "metrics": metrics,
                "arrays": arrays,
                "examples": ids,
                **first_fault(stage, nets, batch, given, key, ids),
            }
            break
    else:
        found = {"step": None}
    return {"stage": stage.name, "starts_from": start, **found}


def first_fault(
    stage: Train,
    nets: Mapping[str, NetState],
    batch: Mapping[str, Mapping[str, jax.Array]],
    consts: Mapping[str, Any],
    key: jax.Array,
    ids: Mapping[str, list[str]],
) -> dict[str, Any]:
    """Computes the losses of a step, operation by operation, up to the first value that is not finite.

    All turns start from the nets before the step.

    Args:
      nets: role -> net, not packed.
      batch: source -> transformed rows.
      consts: constants of the stage, "step" and "averages", as losses find them in `shared`.
      key: random key of the losses of the step.
      ids: source -> ids of the rows.

    Returns:
      "where": "input", "activations" or "loss", and None if all these are finite; "turn": the net of the turn; "name":
      the field, the path of the module, or the terms of the loss; "images": the ids of the rows, where the value has
      rows.
    """

    def rows_of(array: Any, names: list[str]) -> list[str]:
        if array.ndim == 0 or array.shape[0] != len(names):
            return []
        bad = ~np.isfinite(np.asarray(array, np.float32)).reshape(len(names), -1).all(1)
        return [name for name, wrong in zip(names, bad, strict=True) if wrong]

    for source, rows in batch.items():
        for field, value in rows.items():
            # Images may be kept features, which are several arrays.
            for array in filter(_is_bad, jax.tree.leaves(value)):
                name = f"{source}/{field}"
                return {"where": "input", "turn": None, "name": name, "images": rows_of(array, ids[source])}
    shared: dict[str, Any] = {}
    for number, turn in enumerate(stage.turns):
        turn_key, shares = jax.random.fold_in(key, number), []
        for part in range(stage.accumulate):
            own = jax.tree.map(lambda x, part=part: _part(x, part, stage.accumulate), dict(batch))
            names = [_part(np.array(rows), part, stage.accumulate).tolist() for rows in ids.values()]
            seen: list[tuple[str, Any]] = []

            def watch(
                call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext, seen: list = seen
            ) -> Any:
                out = call(*args, **kwargs)
                if not seen:
                    # The first to return is the innermost.
                    path = "/".join(context.module.path) or type(context.module).__name__
                    seen += [(path, x) for x in jax.tree.leaves(out) if _is_bad(x)][:1]
                return out

            given = {**consts, **(shared if stage.accumulate == 1 else {k: x[part] for k, x in shared.items()})}
            one = turn_key if stage.accumulate == 1 else jax.random.fold_in(turn_key, part)
            with tracing(Tracing(stage.statistics_groups)), nn.intercept_methods(watch):
                loss, out = turn.loss(nets[turn.net].params, nets, own, given, one)
            if seen:
                path, array = seen[0]
                images = next(filter(None, (rows_of(array, rows) for rows in names)), [])
                return {"where": "activations", "turn": turn.net, "name": path, "images": images}
            terms = [name for name, value in out.metrics.items() if _is_bad(value)]
            if terms or _is_bad(loss):
                return {"where": "loss", "turn": turn.net, "name": ", ".join(terms) or "loss", "images": []}
            shares.append(out.share)
        shared |= shares[0] if stage.accumulate == 1 else jax.tree.map(lambda *x: jnp.stack(x), *shares)
    return {"where": None, "turn": None, "name": None, "images": []}


def _part(rows: Any, part: int, parts: int) -> Any:
    return rows.reshape(parts, rows.shape[0] // parts, *rows.shape[1:])[part]


def _is_bad(array: Any) -> bool:
    """Whether an array has a value that is not finite; of values inside a transformation nothing is known."""
    if isinstance(array, jax.core.Tracer) or not isinstance(array, jax.Array | np.ndarray):
        return False
    return jnp.issubdtype(array.dtype, jnp.inexact) and not bool(jnp.isfinite(array).all())
