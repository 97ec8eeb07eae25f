"""`scarce-jax evaluate RUN`: restore what a result needs, and measure it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from scarce_jax.cli.common import Folder, Name, RunFolder, Scales, Switch, Window, parse, print_json, table, views_from


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `evaluate`.

    Attributes:
      run: a run folder.
      result: which result; default the method's first. An unknown name lists them.
      split: which split of the dataset; default the one that the config measures on.
      flip: also predict the mirrored image, and average the probabilities.
      scales: predict at these factors of the result's size, and average.
      window: predict in windows of this size that slide over the image, and average where they overlap.
      crf: refine by the image's colours with a dense CRF of these parameters; an unknown name lists them.
      data_dir: prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      json: end standard output with one JSON object.
    """

    run: RunFolder
    result: Name = None
    split: Name = None
    flip: Switch = False
    scales: Scales = None
    window: Window = None
    crf: Name = None
    data_dir: Folder = None
    json: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "evaluate", "Measures a result over every image of a split.")
    from scarce_jax import runs

    views = views_from(options)
    found = runs.evaluate(options.run, options.result, split=options.split, views=views, data_dir=options.data_dir)
    print(_show(found))
    if options.json:
        print_json(found)
    return 0


def _show(found: dict[str, Any]) -> str:
    from scarce_jax.evaluation.confusion import is_group_figure

    rows = [[name, value] for name, value in found["per_class"].items()]
    head = f"{found['run']}: {found['result']} on {found['images']} images of {found['dataset']}/{found['split']}"
    if "map" in found:
        figures = f"mAP {_figure(found['map'])}  mean F1 {_figure(found['mean_f1'])}"
        return f"{head}\n\n{table(rows, ['class', 'average precision'])}\n\n{figures}"
    figures = (
        f"mIoU {found['miou']:.4f} (at training size {found['miou_at_size']:.4f})  "
        f"mean accuracy {found['mean_accuracy']:.4f}  pixel accuracy {found['pixel_accuracy']:.4f}"
    )
    groups = [f"mIoU {key.removeprefix('miou_')} {_figure(found[key])}" for key in found if is_group_figure(key)]
    figures = "  ".join([figures, *groups])
    return f"{head}\n\n{table(rows, ['class', 'IoU'])}\n\n{figures}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
