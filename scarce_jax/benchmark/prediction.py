"""Times the prediction of masks at native size, as `predict` and `evaluate` run it, with random nets and images."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from scarce_jax import memory
from scarce_jax.benchmark.roofline import reached
from scarce_jax.benchmark.timing import pace, rates
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.evaluation.native import native_canvas
from scarce_jax.recipe import Eval
from scarce_jax.run_folder import predictor
from scarce_jax.synthetic import abstract_consts, abstract_nets, ones_for_artifacts, row_spec
from scarce_jax.training import state as state_lib
from scarce_jax.training.session import Session


def time_prediction(
    session: Session,
    info: DatasetInfo,
    config: Any,
    name: str,
    result: Eval,
    steps: int,
    batch: int,
    native: tuple[int, int],
) -> dict[str, Any]:
    """Times a result, and returns the keys of its record that are special to predictions.

    Args:
      name, result: a result with a `predict`.
      batch: images per device.
      native: (height, width) of the images.
    """
    mesh = session.mesh
    nets = state_lib.init_state(result.nets, 0, session.seed, name, {}, mesh).nets
    # No stage has run, so the constants that stages leave do not exist.
    consts = jax.device_get(ones_for_artifacts(result, session.recipe, info, mesh))
    result = dataclasses.replace(result, consts=consts)
    predict = predictor(session, info, config, name, result, nets)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*native, 3), np.uint8)
    coarse = rng.integers(0, len(info.classes), native, np.uint8) if predict.needs_coarse else None
    canvas = native_canvas(*native)
    rows = {key: np.stack([value] * batch * mesh.size) for key, value in predict.row(image, coarse).items()}
    what = f"predicting with result {name}"
    with memory.advice(what=what, batch=batch, size=native, lower="--batch", resumes=False):
        began = time.perf_counter()
        jax.block_until_ready(predict.dispatch(rows, canvas))
        first_call = round(time.perf_counter() - began, 3)
        times = rates(pace(lambda: predict.dispatch(rows, canvas), steps), batch * mesh.size, mesh.size)
        latency = rates(pace(lambda: predict.predict(image, coarse), steps), 1, 1)
    work = {"flops": _flops(session, info, result, native, batch), "bytes": None}
    seconds = batch / times["images_per_second_per_device"]
    return {
        "stage": next(iter(result.nets.values())).init_from.stage,
        "result": name,
        "native_size": native,
        "size": result.source.size,
        "parameters": sum(x.size for net in nets.values() for x in jax.tree.leaves(net.params)),
        "first_call_seconds": first_call,
        "latency": {key: latency[key] for key in ("median_step_ms", "p90_step_ms")},
        "global_batch": batch * mesh.size,
        **times,
        **work,
        **reached(work, seconds, mesh.devices.flat[0], config.dtype),
    }


def _flops(session: Session, info: DatasetInfo, result: Eval, native: tuple[int, int], batch: int) -> float:
    """FLOPs of the nets for one batch, without the resizing of scores to native size."""
    spec = row_spec(result.source, session.recipe, info, native)
    rows = {name: jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for name, x in spec.items()}

    def scores(nets, rows, consts):
        batch = jax.vmap(lambda row: result.source.transform(row, jax.random.key(0), consts))(rows)
        return result.predict(nets, batch, consts)

    consts = abstract_consts(result, session.recipe, info)
    return jax.jit(scores).lower(abstract_nets(result.nets), rows, consts).cost_analysis().get("flops", 0.0)
