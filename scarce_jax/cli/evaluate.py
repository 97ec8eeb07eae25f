"""`scarce-jax evaluate RUN`: restore what a result needs, and measure it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

from scarce_jax.cli.common import Flat, Folder, Name, RunFolder, Switch, parse, print_json, table
from scarce_jax.cli.views import PredictionFlags


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `evaluate`.

    Attributes:
      run: a run folder.
      result: which result; default the method's first. An unknown name lists them.
      split: which split of the dataset; default the one that the config measures on.
      data_dir: prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      json: end standard output with one JSON object.
    """

    run: RunFolder
    result: Name = None
    split: Name = None
    prediction: Annotated[PredictionFlags, Flat] = dataclasses.field(default_factory=PredictionFlags)
    data_dir: Folder = None
    json: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "evaluate", "Measures a result over every image of a split.")
    from scarce_jax import runs

    figures = runs.evaluate(
        options.run,
        options.result,
        split=options.split,
        views=options.prediction.views(),
        batch=options.prediction.batch,
        data_dir=options.data_dir,
    )
    print(_text(figures))
    if options.json:
        print_json(figures)
    return 0


def _text(figures: dict[str, Any]) -> str:
    from scarce_jax.data.figures import is_group_figure

    rows = [[name, value] for name, value in figures["per_class"].items()]
    data = f"{figures['images']} images of {figures['dataset']}/{figures['split']}"
    head = f"{figures['run']}: {figures['result']} on {data}"
    if "map" in figures:
        summary = f"mAP {_figure(figures['map'])}  mean F1 {_figure(figures['mean_f1'])}"
        return f"{head}\n\n{table(rows, ['class', 'average precision'])}\n\n{summary}"
    summary = (
        f"mIoU {figures['miou']:.4f} (at training size {figures['miou_at_size']:.4f})  "
        f"mean accuracy {figures['mean_accuracy']:.4f}  pixel accuracy {figures['pixel_accuracy']:.4f}"
    )
    groups = [f"mIoU {key.removeprefix('miou_')} {_figure(figures[key])}" for key in figures if is_group_figure(key)]
    summary = "  ".join([summary, *groups])
    return f"{head}\n\n{table(rows, ['class', 'IoU'])}\n\n{summary}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
