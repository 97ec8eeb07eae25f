"""Checks that a train step is the same on 1, 2, 4 and 8 devices, and projects what many GPUs would make of it.

    python benchmarks/scaling.py [CONFIG:STAGE ...] [--devices N ...] [--steps N] [--target h100] [--out FILE]

The check runs on simulated devices of the CPU: a stage on random rows, with the config's global batch, in a process for
each number of devices. It fails if the losses, or the gradient norms of the first step, differ from those of the first
number by more than `TOLERANCE`. (Later gradient norms may: Adam makes a whole step of a gradient that is all rounding.)
A line has them, and the collectives of the program that XLA compiled for the CPU. No time is measured: the devices
share the cores.

With --target the stage is also compiled for 8 GPUs that are not at hand, with the config's batch on each (needs the
extra `plan`). That line has the record of `scarce-jax benchmark --target`: the all-reduces of the real program, and the
projected efficiency on 8, 64 and 512 GPUs.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
from typing import Any

from common import ROOT, append, arguments

STAGES = ["auxiliary_scenes:segmenter"]
DEVICES = [1, 2, 4, 8]
TOLERANCE = 1e-3
GPUS = 8
COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(")


def load(name: str) -> tuple[Any, str]:
    """The config and the stage's name of CONFIG:STAGE."""
    from scarce_jax.cli.common import load_config

    config, stage = name.split(":")
    return load_config(ROOT / "configs" / f"{config}.py"), stage


def trained(name: str, steps: int) -> dict[str, Any]:
    """Trains a stage for a few steps on all devices of this process."""
    import jax

    from scarce_jax import mesh as mesh_lib
    from scarce_jax.dry_run import known_recipe
    from scarce_jax.synthetic import SyntheticRows, ones_for_artifacts
    from scarce_jax.training.batches import TrainInput
    from scarce_jax.training.packing import packed
    from scarce_jax.training.state import init_state
    from scarce_jax.training.step import make_step, step_keys

    config, stage_name = load(name)
    info, recipe = known_recipe(config, None)
    stage, mesh = recipe.stage(stage_name), mesh_lib.make_mesh()
    inputs = {}
    for key, source in stage.sources.items():
        mesh_lib.check_batch(mesh, {key: source.batch}, stage.accumulate)
        rows = SyntheticRows(source, recipe, info, 2 * source.batch)
        inputs[key] = TrainInput(source, rows, 0, key, mesh, 1, True)
    state = packed(init_state(stage.nets, steps, 0, stage_name, {}, mesh), stage.optimizers, mesh)
    keys, consts = step_keys(inputs, 0, stage_name, mesh), ones_for_artifacts(stage, recipe, info, mesh)
    streams = {key: source.batches(0, steps) for key, source in inputs.items()}
    program, values = None, collections.defaultdict(list)
    for _ in range(steps):
        draws = {key: next(batches) for key, batches in streams.items()}
        if program is None:
            program = make_step(stage, steps, inputs, mesh).lower(state, draws, keys, consts).compile()
        state, metrics = program(state, draws, keys, consts)
        for key, value in jax.device_get(metrics).items():
            values[key].append(float(value))
    return {
        "devices": mesh.size,
        "global_batch": {key: source.batch for key, source in stage.sources.items()},
        "metrics": values,
        "collectives": dict(collections.Counter(COLLECTIVE.findall(program.as_text()))),
    }


def in_a_process(name: str, steps: int, devices: int) -> dict[str, Any]:
    """`trained` on so many simulated devices, whose number must be known before JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, __file__, name, "--steps", str(steps), "--here"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def largest_difference(metrics: dict[str, list[float]], reference: dict[str, list[float]]) -> float:
    """The largest relative difference of a loss at any step, or of a gradient norm at the first."""
    return max(
        abs(value - expected) / max(abs(expected), 1e-6)
        for key, values in metrics.items()
        if key.endswith(("/loss", "/grad_norm"))
        for value, expected in list(zip(values, reference[key], strict=True))[: None if key.endswith("/loss") else 1]
    )


def projection(name: str, target: str) -> dict[str, Any]:
    """The record of a stage compiled for `GPUS` GPUs with the config's batch on each."""
    from scarce_jax.dry_run import known_recipe

    config, stage = load(name)
    source = next(iter(known_recipe(config, None)[1].stage(stage).sources.values()))
    from scarce_jax.benchmark.planned import plan

    return plan(config, target=f"{target}x{GPUS}", stage=stage, batch=GPUS * source.batch, name=name)


def check(options: argparse.Namespace, name: str) -> list[str]:
    """Runs a stage on each number of devices; what differs, in words."""
    from scarce_jax.provenance import git_revision, versions

    reference, wrong = None, []
    for devices in options.devices:
        line = in_a_process(name, options.steps, devices)
        reference = reference or line
        difference = largest_difference(line["metrics"], reference["metrics"])
        made_with = {"git_revision": git_revision(), "versions": versions()}
        append(options.out, {"stage": name, **line, "largest_difference": difference, **made_with})
        if difference > TOLERANCE:
            wrong.append(f"{name}: {devices} devices differ from {reference['devices']} by {difference:.1e}")
    return wrong


def main() -> None:
    parser = arguments(__doc__, "scaling.jsonl")
    parser.add_argument("stages", nargs="*", default=STAGES, metavar="CONFIG:STAGE")
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--target", help="a GPU of `scarce-jax benchmark --target`, such as h100")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(trained(options.stages[0], options.steps)))
        return
    wrong = []
    for name in options.stages:
        wrong += check(options, name)
        if options.target:
            append(options.out, {"stage": name, **projection(name, options.target)})
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
