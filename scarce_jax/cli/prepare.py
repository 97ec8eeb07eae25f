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
    from scarce_jax.data.builders import import_builder, is_prepared, prepare, prepare_command

    import_builder(options.dataset)
    prepared_before = not options.again and is_prepared(options.dataset, options.data_dir)
    print(prepare(options.dataset, options.data_dir, options.source, again=options.again))
    if prepared_before:
        again = prepare_command(options.dataset, options.data_dir, again=True)
        print(f"\nThe dataset was prepared before, so nothing was read; to build it again: {again}")
    return 0
