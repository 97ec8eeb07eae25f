"""`scarce-jax replay RUN`: repeats the steps before a loss that was not finite, and says what was the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from scarce_jax.cli.common import Folder, Name, RunFolder, Switch, parse, print_json
from scarce_jax.errors import plural, some


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `replay`.

    Attributes:
      run: a run folder in which a stage stopped because a loss, a parameter or a statistic was not finite.
      stage: the stage; default the last that left a report.
      data_dir: prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      allow_import: import the Python module that the run folder names; only for folders you trust.
      json: end standard output with one JSON object.
    """

    run: RunFolder
    stage: Name = None
    data_dir: Folder = None
    allow_import: Switch = False
    json: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    about = "Repeats the steps before a loss that was not finite, from the last checkpoint, and says what began it."
    options = parse(Options, argv, "replay", about)
    from scarce_jax import runs

    fault = runs.replay(options.run, options.stage, data_dir=options.data_dir, allow_import=options.allow_import)
    print(_text(fault))
    if options.json:
        print_json(fault)
    return 0


_WHERE = {
    "input": "the input {name} is the first",
    "activations": "the output of layer {name} is the first, in the turn of net {turn}",
    "loss": "all activations are finite, the loss of net {turn} is not ({name})",
    None: "losses and activations are finite, the gradient or the update is not",
}


def _text(fault: dict[str, Any]) -> str:
    head = f"{fault['stage']}, replayed from step {fault['starts_from']}"
    if fault["step"] is None:
        return f"{head}: all is finite; the devices or the versions are not those of the run"
    lines = [
        f"{head}: step {fault['step']} is the first with a value that is not finite",
        "  metrics   " + (", ".join(f"{name} {value}" for name, value in fault["metrics"].items()) or "all finite"),
        "  begins    " + _WHERE[fault["where"]].format_map(fault),
        f"  images    {_images(fault)}",
        f"  update    {_arrays(fault['arrays'])}",
        *(f"  batch     {source}: {', '.join(ids)}" for source, ids in fault["examples"].items()),
    ]
    return "\n".join(lines)


def _images(fault: dict[str, Any]) -> str:
    if any(len(fault["images"]) == len(ids) for ids in fault["examples"].values()):
        return "all of the batch"
    return ", ".join(fault["images"]) or "cannot be told apart"


def _arrays(names: list[str]) -> str:
    if not names:
        return "all parameters and statistics are finite after it"
    return f"{plural(len(names), 'array')} not finite after it: {some(names, 3)}"
