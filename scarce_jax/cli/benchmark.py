"""`scarce-jax benchmark CONFIG`: how fast a stage trains, or a result predicts, on the devices at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro

from scarce_jax.cli.common import Folder, Name, Number, Switch, parse_with_config, print_json, table


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `benchmark` beside the config's fields.

    Attributes:
      stage: which training stage; default the first. With --mode infer, the one whose net predicts.
      mode: train times the training step; infer times masks at native size.
      batch: examples per step of every source, over all devices; default the config's. With --mode infer, examples per
        device; default the best, found by doubling.
      steps: steps to measure, after those that compile and warm up.
      native: height and width of the images of --mode infer; default those of the dataset, or of the config's size.
      data_dir: prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      json: end standard output with one JSON object.
    """

    stage: Name = None
    mode: Literal["train", "infer"] = "train"
    batch: Number = None
    steps: int = 20
    native: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W", help_behavior_hint="")] = None
    data_dir: Folder = None
    json: Switch = False


ABOUT = "Compiles and times a config's own step, on random images and on the dataset's where it is prepared."


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    path, options, config = parse_with_config(Options, argv, "benchmark", ABOUT)
    from scarce_jax.benchmark import benchmark

    found = benchmark(
        config,
        stage=options.stage,
        mode=options.mode,
        batch=options.batch,
        steps=options.steps,
        native=options.native,
        data_dir=options.data_dir,
        name=path.stem,
    )
    print(_show(found))
    if options.json:
        print_json(found)
    return 0


def _show(found: dict[str, Any]) -> str:
    what = f"{found['stage']} of {found['config']}, {found['dtype']}, on {found['devices']} x {found['device']}"
    rows = [_timed("random images" if found["benchmark"] == "train" else f"batch {found['best_batch']}", found)]
    if found["benchmark"] == "infer":
        rows = [_timed(f"batch {line['batch']} per device", line) for line in found["batches"]]
    elif found["real"] is not None:
        rows.append(_timed("the dataset's images", found["real"]))
    shown = table(rows, ["", "steps", "median ms", "p90 ms", "images/s", "images/s/device", "data wait"])
    lines = [what, shown, *(f"{key}: {value}" for key, value in _facts(found))]
    return "\n".join(lines)


def _timed(name: str, line: dict[str, Any]) -> list[Any]:
    keys = ("steps", "median_step_ms", "p90_step_ms", "images_per_second", "images_per_second_per_device")
    return [name, *(line[key] for key in keys), line.get("data_wait")]


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if found["benchmark"] == "train":
        facts.append(("compiled in", f"{found['lower_seconds']:.1f} + {found['compile_seconds']:.1f} s (trace, XLA)"))
        if found["peak_bytes"] is not None:
            facts.append(("memory per device", f"{found['peak_bytes'] / 2**20:.0f} MiB"))
        if found["real"] is None:
            facts.append(("real images", f"not measured: {found['real_missing']}"))
        else:
            facts.append(("the loader alone", f"{found['real']['loader_images_per_second']:.1f} images/s"))
    else:
        facts.append(("one image, host work included", f"{found['latency']['median_step_ms']:.1f} ms"))
    if found["flops_per_second"] is not None:
        share = "" if found["share_of_peak"] is None else f", {found['share_of_peak']:.1%} of the peak"
        facts.append(("per device", f"{found['flops_per_second'] / 1e12:.3f} TFLOP/s{share}"))
    if found["bytes_per_second"] is not None:
        share = "" if found["share_of_bandwidth"] is None else f", {found['share_of_bandwidth']:.1%} of the peak"
        facts.append(("memory traffic", f"{found['bytes_per_second'] / 1e9:.1f} GB/s{share}"))
    return facts
