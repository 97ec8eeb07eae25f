"""`scarce-jax prepare DATASET`: build a dataset as ArrayRecord files, without TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from scarce_jax.cli.common import Folder, Switch, parse


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `prepare`.

    Attributes:
      dataset: scenes, scenes/coloured, camvid, cityscapes, voc, voc/animals, coco, coco/with_voc, folder/NAME for
        images of your own (NAME is your choice), or MODULE:CLASS of a builder of your own.
      source: folder that holds its files; `scenes` and `scenes/coloured` are drawn by a program and need none.
      data_dir: where it is built; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      again: build it also where it is there; it is replaced when the new one is complete.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET", help_behavior_hint="")]
    source: Folder = None
    data_dir: Folder = None
    again: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "prepare", "Builds a dataset; leaves nothing half-built.")
    from scarce_jax.data.builders import is_prepared, prepare, prepare_command

    prepared_before = not options.again and is_prepared(options.dataset, options.data_dir)
    print(prepare(options.dataset, options.data_dir, options.source, again=options.again))
    if prepared_before:
        again = prepare_command(options.dataset, options.data_dir, again=True)
        print(f"\nIt was prepared before, and nothing was read now; to build it anew: {again}")
    return 0
