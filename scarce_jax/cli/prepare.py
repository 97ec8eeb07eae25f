"""`scarce-jax prepare DATASET`: builds a dataset as ArrayRecord files, without TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import tyro

from scarce_jax.cli.common import Flat, Folder, Switch, command_line, dataset_name, next_commands, parse, shown
from scarce_jax.cli.source import SourceFlags

if TYPE_CHECKING:
    from scarce_jax.data.builders import Prepared


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
    source_flags: Annotated[SourceFlags, Flat] = dataclasses.field(default_factory=SourceFlags)
    data_dir: Folder = None
    again: Switch = False


def main(argv: Sequence[str], config: pathlib.Path | None = None) -> int:
    """Runs the command; `config` is the one that was made for the dataset, if it was."""
    options = parse(Options, argv, "prepare", "Builds a dataset; leaves nothing half-built.")
    from scarce_jax.data.builders import import_builder, is_prepared, prepare, prepare_command
    from scarce_jax.data.builders.findings import findings
    from scarce_jax.data.builders.formats import Options as SourceOptions
    from scarce_jax.data.builders.formats.splits import NO_VAL
    from scarce_jax.data.builders.listing import LISTING

    import_builder(options.dataset)
    settings = options.source_flags.given()
    source_options = SourceOptions(**settings) if settings else None
    prepared_before = not options.again and is_prepared(options.dataset, options.data_dir)
    prepared = prepare(options.dataset, options.data_dir, options.source, again=options.again, options=source_options)
    print("\n".join([str(prepared), *(f"WARNING {finding}" for finding in findings(prepared))]))
    if options.dataset.startswith("folder/") and "val" not in prepared.info.splits:
        print(f"\nNote: {NO_VAL}.")
    if prepared_before:
        source = options.source or (options.source_flags.images if options.source_flags.masks else None)
        flags = source_options.flags if source_options else ()
        again = prepare_command(options.dataset, options.data_dir, again=True, source=source, flags=flags)
        how = ""
        if source is not None:
            listed = (prepared.directory / LISTING).exists()
            how = f" from the files of {source}" if listed else " (whether its files changed since is not known)"
        print(f"\nThe dataset was prepared before{how}, so nothing was read; to build it again: {again}")
    next_commands(*train_commands(prepared, options.data_dir, config, _init(options)))
    return 0


def _init(options: Options) -> str | None:
    """The command that writes a config for the dataset, of a size for the devices at hand; None without a source."""
    name = options.dataset.removeprefix("folder/")
    if options.source is None or name == options.dataset:
        return None
    named = None if name == dataset_name(options.source) else name
    return command_line("init", options.source, name=named, data_dir=options.data_dir, **options.source_flags.given())


CONFIGS = {
    "scenes": "detailer_scenes",
    "scenes/coloured": "auxiliary_scenes",
    "camvid": "detailer_camvid_small",
    "cityscapes": "detailer_cityscapes",
    "voc": "decoupled_voc",
    "voc/animals": "decoupled_voc_animals_small",
    "lid": "three_step_lid",
}
"""Published dataset -> a shipped config for it."""


def train_commands(
    prepared: Prepared, data_dir: pathlib.Path | None, config: pathlib.Path | None = None, init: str | None = None
) -> Iterator[str]:
    """The commands that train on a dataset.

    Args:
      data_dir: as the user gave it.
      config: a config of the dataset; default NAME.py of folder/NAME in the current folder.
      init: the command that writes such a config, for a dataset with masks to measure it on; default a shipped config.
    """
    from scarce_jax.data.builders.base import SIMULATED

    name = prepared.info.name
    if name in CONFIGS:
        yield command_line("train", CONFIGS[name], data_dir=data_dir)
    if not name.startswith("folder/"):
        return
    own = config or pathlib.Path(f"{name.removeprefix('folder/')}.py")
    fine, coarse, tags = (prepared.info.having("train", field) for field in ("fine", "coarse", "tags"))
    measured = prepared.info.having("val", "fine")
    proposed = init and fine and measured and not own.exists()
    if proposed:
        yield init
    if own.is_file() or proposed:
        yield command_line("train", own, data_dir=data_dir)
    elif fine or (tags and prepared.info.background is not None):
        drawn = coarse and prepared.coarse_from != SIMULATED and _paired(prepared, "train")
        shipped = "detailer_folder" if drawn else "supervised_folder" if fine else "three_step_scenes"
        split = None if (_paired(prepared, "val") if drawn else measured) else "None"
        yield command_line("train", shipped, dataset=name, eval_split=split, data_dir=data_dir)


def _paired(prepared: Prepared, split: str) -> bool:
    """Whether an image of a split has a fine mask and a coarse one."""
    from scarce_jax.data.index import Index, index_path

    if not prepared.info.splits.get(split):
        return False
    has = Index.read(index_path(prepared.directory, split)).has
    return bool((has["fine"] & has["coarse"]).any())
