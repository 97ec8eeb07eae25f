"""`scarce-jax prepare DATASET`: builds a dataset as ArrayRecord files, without TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from scarce_jax.cli.common import Folder, Switch, parse, shown


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `prepare`.

    Attributes:
      dataset: scenes, scenes/coloured, camvid, cityscapes, voc, voc/animals, coco, coco/with_voc, lid, folder/NAME for
        images of your own (NAME is your choice), imagenet/NAME for a folder of images for each class, or MODULE:CLASS
        for a builder of your own.
      source: folder with the files of the dataset; a program draws scenes and scenes/coloured, which need none.
      data_dir: folder of prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      again: build it again if it exists; the old one is replaced when the new one is complete.
    """

    dataset: Annotated[str, tyro.conf.Positional, shown("DATASET")]
    source: Folder = None
    data_dir: Folder = None
    again: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Options, argv, "prepare", "Builds a dataset; leaves nothing half-built.")
    from scarce_jax.data.builders import is_prepared, prepare, prepare_command
    from scarce_jax.data.builders.findings import findings
    from scarce_jax.data.builders.listing import LISTING

    prepared_before = not options.again and is_prepared(options.dataset, options.data_dir)
    prepared = prepare(options.dataset, options.data_dir, options.source, again=options.again)
    print("\n".join([str(prepared), *(f"WARNING {finding}" for finding in findings(prepared))]))
    if prepared_before:
        again = prepare_command(options.dataset, options.data_dir, again=True, source=options.source)
        how = ""
        if options.source is not None:
            listed = (prepared.directory / LISTING).exists()
            how = (
                f" from the files of {options.source}" if listed else " (whether its files changed since is not known)"
            )
        print(f"\nThe dataset was prepared before{how}, so nothing was read; to build it again: {again}")
    return 0
