"""`scarce-jax evaluate RUN`: restore what a result needs, and measure it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from scarce_jax.cli.common import Folder, Name, RunFolder, Switch, parse, print_json, table


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
    data_dir: Folder = None
    json: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "evaluate", "Measures a result over every image of a split.")
    from scarce_jax import api

    found = api.evaluate(options.run, options.result, split=options.split, data_dir=options.data_dir)
    print(_show(found))
    if options.json:
        print_json(found)
    return 0


def _show(found: dict[str, Any]) -> str:
    rows = [[name, iou] for name, iou in found["per_class"].items()]
    head = f"{found['run']}: {found['result']} on {found['images']} images of {found['dataset']}/{found['split']}"
    figures = (
        f"mIoU {found['miou']:.4f} (at training size {found['miou_at_size']:.4f})  "
        f"mean accuracy {found['mean_accuracy']:.4f}  pixel accuracy {found['pixel_accuracy']:.4f}"
    )
    return f"{head}\n\n{table(rows, ['class', 'IoU'])}\n\n{figures}"
