"""`scarce-jax prepare DATASET`: build a dataset as ArrayRecord files, without TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated

import tyro

from scarce_jax.cli.common import parse, table


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `prepare`.

    Attributes:
      dataset: name of the dataset.
      source: folder that holds its published files; `scenes` needs none.
      data_dir: where it is built; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    """

    dataset: Annotated[str, tyro.conf.Positional]
    source: pathlib.Path | None = None
    data_dir: pathlib.Path | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "prepare", "Builds a dataset; leaves nothing half-built.")
    from scarce_jax.data.builders import prepare

    print(prepare(options.dataset, options.data_dir, options.source))
    return 0


__all__ = ["Options", "main", "table"]
