"""`scarce-jax report RUN...`: writes one HTML file about one or several runs."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from scarce_jax.cli.common import Folder, Name, Number, Switch, parse, shown


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `report`.

    Attributes:
      runs: run folders, finished or not; several are compared, and those that differ only in their seed are averaged.
      out: the file; default RUN/report.html for one run, and report.html in the current folder for several.
      result: results to predict and show beside each other, such as labelled_only,semi; default the method's first.
      images: number of images to show: the best, the worst and others evenly between.
      split: split of the dataset to predict; default the one that the config measures on.
      batch: images per device, for less memory; it changes no result. Default the config's.
      data_dir: prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      allow_import: import the Python module that the run folder names; only for folders you trust.
    """

    runs: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional, shown("RUN...")] = ()
    out: Annotated[pathlib.Path | None, shown("FILE")] = None
    result: Annotated[str | None, shown("NAME,...")] = None
    images: Annotated[int, tyro.conf.arg(metavar="N")] = 12
    split: Name = None
    batch: Number = None
    data_dir: Folder = None
    allow_import: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    about = "Writes one HTML file with figures, curves, confusion matrix and pictures; it needs no network."
    options = parse(Options, argv, "report", about)
    if not options.runs:
        print("scarce-jax report: no RUN given; give at least one run folder", file=sys.stderr)
        return 2
    from scarce_jax.report import report

    flags = vars(options)
    names = flags.pop("result")
    written = report(**flags, results=() if names is None else names.split(","))
    for line in written["left_out"]:
        print(f"left out: {line}")
    runs = "1 run" if len(options.runs) == 1 else f"{len(options.runs)} runs"
    print(f"{written['report']}: {runs}, {written['images']} images, {written['bytes'] / 1e6:.1f} MB")
    return 0
