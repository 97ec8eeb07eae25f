"""`scarce-jax benchmark CONFIG`: times the training of a stage, or the prediction of a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from scarce_jax.cli.common import Folder, Name, Number, Switch, Target, parse_with_config, print_json, shown, table
from scarce_jax.errors import InputError, UsageError
from scarce_jax.ranges import Count, Pixels


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `benchmark` besides the config's fields.

    Attributes:
      stage: a training stage; default the first. With --mode infer, the stage whose net predicts.
      mode: train times the training step; infer times masks at native size.
      target: (also --target GPU) compile for this GPU, which need not be at hand, and run nothing: h100, h200, a100, l4
        or 4090, or GPUxN for N of them. Takes all stages of the mode unless --stage names one. Needs the extra "plan".
      largest_batch: with --target, search the largest batch that fits.
      batch: examples per step of every source, over all devices; with --mode infer, images per device. Default the
        config's.
      steps: number of steps to measure, after those that compile and warm up; default 20.
      native: height and width of the images for --mode infer; default those of the dataset, or the config's size.
      data_dir: folder of prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      json: end standard output with one JSON object.
    """

    stage: Name = None
    mode: Literal["train", "infer"] = "train"
    target: Target = None
    largest_batch: Switch = False
    batch: Number = None
    steps: Annotated[Count | None, shown("N")] = None
    native: Annotated[tuple[Pixels, Pixels] | None, shown("H W")] = None
    data_dir: Folder = None
    json: Switch = False


ABOUT = (
    "Compiles and times a config's own step, on random images and on the dataset's where it is prepared. "
    "With --target, compiles it for a GPU that need not be at hand, and shows what it costs there."
)


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    path, options, config = parse_with_config(Options, argv, "benchmark", ABOUT)
    if options.largest_batch and options.target is None:
        raise InputError("--largest-batch: needs --target, the GPU whose memory is meant; add it")
    if options.steps is not None and options.target is not None:
        raise UsageError(f"--steps {options.steps}: --target times no step; leave out one of the two")
    if options.native is not None and options.mode == "train" and options.target is None:
        raise UsageError("--native: the training step has the config's own size; leave it out, or add --mode infer")
    arguments = {key: value for key, value in vars(options).items() if key != "steps" or value is not None}
    arguments["name"] = path.stem
    as_json = arguments.pop("json")
    if options.target is None:
        from scarce_jax.benchmark import benchmark

        del arguments["target"], arguments["largest_batch"]
        record = benchmark(config, **arguments)
        print(_show(record))
    else:
        from scarce_jax.benchmark.planned import plan
        from scarce_jax.cli.planned import show

        record = plan(config, **arguments)
        print(show(record))
    if as_json:
        print_json(record)
    return 0


def _show(record: dict[str, Any]) -> str:
    what = f"{record['stage']} of {record['config']}, {record['dtype']}, on {record['devices']} x {record['device']}"
    training = record["benchmark"] == "train"
    rows = [_times("random images" if training else f"batch {record['global_batch']}", record)]
    if training and record["real"] is not None:
        rows.append(_times("the dataset's images", record["real"]))
    times = table(rows, ["", "steps", "median ms", "p90 ms", "images/s", "images/s/device", "data wait"])
    lines = [what, times, *(f"{key}: {value}" for key, value in _facts(record))]
    return "\n".join(lines)


def _times(name: str, times: dict[str, Any]) -> list[Any]:
    keys = ("steps", "median_step_ms", "p90_step_ms", "images_per_second", "images_per_second_per_device")
    return [name, *(times[key] for key in keys), times.get("data_wait")]


def _facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if record["benchmark"] == "train":
        facts.append(("compiled in", f"{record['lower_seconds']:.1f} + {record['compile_seconds']:.1f} s (trace, XLA)"))
        if record["peak_bytes"] is not None:
            facts.append(("memory per device", f"{record['peak_bytes'] / 2**20:.0f} MiB"))
        if record["real"] is None:
            facts.append(("real images", f"not measured: {record['real_missing']}"))
        else:
            facts.append(("the loader alone", f"{record['real']['loader_images_per_second']:.1f} images/s"))
    else:
        facts.append(("one image, host work included", f"{record['latency']['median_step_ms']:.1f} ms"))
    if record["flops_per_second"] is not None:
        share = "" if record["share_of_peak"] is None else f", {record['share_of_peak']:.1%} of the peak"
        facts.append(("per device", f"{record['flops_per_second'] / 1e12:.3f} TFLOP/s{share}"))
    if record["bytes_per_second"] is not None:
        share = "" if record["share_of_bandwidth"] is None else f", {record['share_of_bandwidth']:.1%} of the peak"
        facts.append(("memory traffic", f"{record['bytes_per_second'] / 1e9:.1f} GB/s{share}"))
    return facts
