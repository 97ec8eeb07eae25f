"""`scarce-jax prepare DATASET`: build a dataset as ArrayRecord files, without TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from scarce_jax.cli.common import Folder, parse


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `prepare`.

    Attributes:
      dataset: name of the dataset: scenes or camvid.
      source: folder that holds its published files; `scenes` is drawn by a program and needs none.
      data_dir: where it is built; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET", help_behavior_hint="")]
    source: Folder = None
    data_dir: Folder = None


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "prepare", "Builds a dataset; leaves nothing half-built.")
    from scarce_jax.data.builders import prepare

    print(prepare(options.dataset, options.data_dir, options.source))
    return 0
