"""`scarce-jax evaluate RUN`: measures a result of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

from scarce_jax.cli.common import (
    Flat,
    Folder,
    Name,
    RunFolder,
    Switch,
    cell,
    command_line,
    next_commands,
    parse,
    print_json,
    recipe_table,
    table,
)
from scarce_jax.cli.views import PredictionFlags


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `evaluate`.

    Attributes:
      run: a run folder.
      result: name of the result; default the method's first. An unknown name lists all.
      split: split of the dataset; default the one that the config measures on.
      data_dir: prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      allow_import: import the Python module that the run folder names; only for folders you trust.
      json: end standard output with one JSON object.
    """

    run: RunFolder
    result: Name = None
    split: Name = None
    prediction: Annotated[PredictionFlags, Flat] = dataclasses.field(default_factory=PredictionFlags)
    data_dir: Folder = None
    allow_import: Switch = False
    json: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "evaluate", "Measures a result over every image of a split.")
    from scarce_jax import runs
    from scarce_jax.training.folder import read_summary

    arguments = {"split": options.split, "data_dir": options.data_dir, **options.prediction.arguments()}
    figures = runs.evaluate(options.run, options.result, allow_import=options.allow_import, **arguments)
    print(_text(figures))
    tables = (read_summary(options.run) or {"tables": {}})["tables"]
    if figures["result"] in tables:  # What the run itself measured of this result, on its own split.
        print(f"\n{recipe_table(figures['result'], tables[figures['result']])}")
    if options.json:
        print_json(figures)
    else:
        names = ("result", "split", "data_dir", "allow_import")
        flags = {name: getattr(options, name) for name in names} | {"batch": options.prediction.batch}
        next_commands(command_line("report", options.run, **flags))
    return 0


def _text(figures: dict[str, Any]) -> str:
    from scarce_jax.data.figures import COVERED, COVERED_BY_CLASS, is_group_figure, share_of_classes

    rows = [[name, value] for name, value in figures["per_class"].items()]
    data = f"{figures['images']} images of {figures['dataset']}/{figures['split']}"
    head = f"{figures['run']}: {figures['result']} on {data}"
    if "map" in figures:
        summary = f"mAP {cell(figures['map'])}  mean F1 {cell(figures['mean_f1'])}"
        return f"{head}\n\n{table(rows, ['class', 'average precision'])}\n\n{summary}"
    share = share_of_classes(figures["per_class"])
    summary = (
        f"mIoU {cell(figures['miou'])}{share and f' over {share}'} (at training size {cell(figures['miou_at_size'])})  "
        f"mean accuracy {cell(figures['mean_accuracy'])}  pixel accuracy {cell(figures['pixel_accuracy'])}"
    )
    groups = [f"mIoU {key.removeprefix('miou_')} {cell(figures[key])}" for key in figures if is_group_figure(key)]
    if groups:
        summary += "\n" + "  ".join(groups)
    header = ["class", "IoU"]
    if "coverage" in figures:
        header += COVERED_BY_CLASS.values()
        rows = [[name, iou, *(figures[key][name] for key in COVERED_BY_CLASS)] for name, iou in rows]
        covered = "  ".join(f"{heading} {cell(figures[key])}" for key, heading in COVERED.items())
        summary += f"\nof the pixels that are not void in a mask: {covered}"
    return f"{head}\n\n{table(rows, header)}\n\n{summary}"
