"""Times a train step of the library, and prints lines of figures.

    python benchmarks/gpu/step.py NET [--steps N] [--profile] [--tiny] [--out FOLDER] [--name NAME]

The program is the stage's own step, as `scarce-jax train` compiles it, on one batch of random images that is on the
device. It is traced before the GPU is taken, and compiled with the GPU, since XLA times kernels to choose them. Initial
values are drawn with NumPy: a program that draws them would have to be compiled too. FOLDER gets the compiled program
as NAME.hlo.txt, and with --profile a table of its kernels as NAME.kernels.txt.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from device import emit, taken
from kernels import kernel_table, limits
from nets import NETS, stage_of

from scarce_jax import mesh as mesh_lib
from scarce_jax import synthetic
from scarce_jax.benchmark.roofline import memory_in_use, reached, work
from scarce_jax.benchmark.timing import pace, rates
from scarce_jax.provenance import environment

PROFILED = 3
"""Steps in a profile."""


def initial(path: tuple[Any, ...], leaf: Any, rng: np.random.Generator) -> np.ndarray:
    """A value of the train state: He's values for kernels, ones for scales and variances, zeros for all others."""
    name = jax.tree_util.keystr(path)
    if "opt_state" not in name and name.endswith("['kernel']"):
        deviation = np.sqrt(2 / max(1, np.prod(leaf.shape[:-1])))
        return (rng.standard_normal(leaf.shape, np.float32) * deviation).astype(leaf.dtype)
    if "opt_state" not in name and name.endswith(("['scale']", "['var']")):
        return np.ones(leaf.shape, leaf.dtype)
    return np.zeros(leaf.shape, leaf.dtype)


def batch_of(source: Any, recipe: Any, info: Any) -> dict[str, Any]:
    """A batch of random rows, as the step gets it of a source that streams."""
    rows = synthetic.SyntheticRows(source, recipe, info, source.batch)
    drawn = [rows[k] for k in range(source.batch)]
    decoded = {name: np.stack([row[name] for row in drawn]) for name in drawn[0]}
    return {"row": np.arange(source.batch, dtype=np.int32), "decoded": decoded}


def count_cache_hits() -> list[str]:
    """Programs that are read from the compilation cache from now on; the list grows."""
    hits: list[str] = []
    jax.monitoring.register_event_listener(
        lambda event, **_: hits.append(event) if event == "/jax/compilation_cache/cache_hits" else None
    )
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=NETS)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--name", default="step")
    options = parser.parse_args()
    began = time.perf_counter()
    config, info, recipe, stage = stage_of(options.net, options.tiny)
    mesh = mesh_lib.make_mesh(jax.devices()[:1])
    lowered = synthetic.lower(stage, recipe, info, mesh)
    traced = time.perf_counter()
    state, *_ = lowered.args_info[0]
    rng = np.random.default_rng(0)
    state = jax.tree_util.tree_map_with_path(lambda path, leaf: initial(path, leaf, rng), state)
    draws = {name: batch_of(source, recipe, info) for name, source in stage.sources.items()}
    parameters = sum(x.size for net in state.nets.values() for x in jax.tree.leaves(net.params))
    images = sum(source.batch for source in stage.sources.values())
    hits = count_cache_hits()
    with taken():
        start = time.perf_counter()
        compiled = lowered.compile()
        compiling = round(time.perf_counter() - start, 2)
        # A line of its own, in case that the process is killed while it measures.
        emit(net=options.net, compile_s=compiling, from_cache=bool(hits))
        measured = measure(options, stage, recipe, info, mesh, compiled, state, draws, images)
        peak = memory_in_use(mesh.devices.flat[0]) or {}
    done = work(lowered, compiled, 1)
    record = {
        **environment(),
        "net": options.net,
        "dtype": config.dtype,
        "batch": images,
        "parameters": parameters,
        "trace_s": round(traced - began, 2),
        "compile_s": compiling,
        "from_cache": bool(hits),
        **{key: value for key, value in measured.items() if key != "trace"},
        **done,
        **reached(done, images / measured["images_per_second"], mesh.devices.flat[0], config.dtype),
        "measured_peak_bytes": peak.get("peak_bytes_in_use"),
    }
    emit(**record)
    if options.out:
        text = compiled.as_text()
        (options.out / f"{options.name}.hlo.txt").write_text(text)
        kind = mesh.devices.flat[0].device_kind
        if kind != "cpu":
            emit(net=options.net, bound_ms=round(sum(ms for _, ms in limits(text, kind).values()), 3))
        if options.profile:
            table, figures = kernel_table(measured["trace"], text, PROFILED, kind)
            (options.out / f"{options.name}.kernels.txt").write_text(table)
            emit(net=options.net, profile=figures)


def measure(
    options: argparse.Namespace,
    stage: Any,
    recipe: Any,
    info: Any,
    mesh: jax.sharding.Mesh,
    compiled: jax.stages.Compiled,
    state: Any,
    draws: Mapping[str, Any],
    images: int,
) -> dict[str, Any]:
    """Times the compiled step: the first call, the rate, and the host's part of a dispatch; with --profile, a trace."""
    state = mesh_lib.replicate(mesh, state)
    draws = mesh_lib.shard(mesh, draws)
    keys = {name: jax.random.key(k) for k, name in enumerate((*stage.sources, "loss"))}
    keys = jax.device_put(keys, mesh_lib.replicated(mesh))
    consts = synthetic.ones_for_artifacts(stage, recipe, info, mesh)
    metrics: dict[str, jax.Array] = {}

    def step() -> Any:
        nonlocal state, metrics
        state, metrics = compiled(state, draws, keys, consts)
        return metrics

    began = time.perf_counter()
    jax.block_until_ready(step())
    first = time.perf_counter() - began
    times = rates(pace(step, options.steps), images, 1)
    hosts = []
    for _ in range(5):
        began = time.perf_counter()
        step()
        hosts.append(time.perf_counter() - began)
        jax.block_until_ready(metrics)
    trace = None
    if options.profile:
        trace = tempfile.mkdtemp()
        with jax.profiler.trace(trace):
            for _ in range(PROFILED):
                step()
            jax.block_until_ready(metrics)
    losses = {name: float(x) for name, x in metrics.items() if name.endswith("/loss")}
    host = round(1e3 * statistics.median(hosts), 3)
    return {"first_call_s": round(first, 2), **times, "dispatch_ms": host, "losses": losses, "trace": trace}


if __name__ == "__main__":
    main()
