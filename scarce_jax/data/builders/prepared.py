"""Finding prepared datasets, and reading their facts from their folders."""

from __future__ import annotations

import dataclasses
import importlib
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from scarce_jax.data.builders.metadata import DamagedDataset, read_metadata
from scarce_jax.data.coarse import CoarseQuality
from scarce_jax.data.schema import OPTIONAL, DatasetInfo
from scarce_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from scarce_jax.data.builders.base import SegmentationBuilder

_NAME = re.compile(r"[a-z0-9_-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared dataset; `str` gives a summary of it.

    Attributes:
      info: facts of the dataset.
      version: the version of its builder, plus a hash of the content if that may vary.
      directory: the dataset's folder, as `tfds.builder_from_directory` expects it.
      bytes: size on disk.
      tags_from: the origin of the image tags, in words.
      coarse_from: the origin of the coarse masks, in words.
      coarse: split -> quality of the coarse masks.
      shards: split -> (name, number of records) of its ArrayRecord files, in order.
      occurs: split -> (images, pixels), with one number per class: how many images show it by their fine mask or tags,
        and its pixels in fine masks.
    """

    info: DatasetInfo
    version: str
    directory: pathlib.Path
    bytes: int
    tags_from: str
    coarse_from: str
    coarse: Mapping[str, CoarseQuality]
    occurs: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    shards: Mapping[str, tuple[tuple[str, int], ...]]

    def __str__(self) -> str:
        info, classes = self.info, self.info.classes
        background = "none" if info.background is None else classes[info.background]
        lines = [
            f"{info.name} {self.version} in {self.directory}",
            f"  images      {', '.join(f'{split} {count}' for split, count in info.splits.items())}",
            *(f"              {split}: {self._labels(split)}" for split in info.splits if info.lacking.get(split)),
            f"  classes     {len(classes)}: {', '.join(classes)}",
            f"  background  {background}",
            f"  size        {self.bytes / 1e6:.1f} MB",
            f"  tags        from {self.tags_from}",
            f"  coarse      {self.coarse_from}",
        ]
        for split, quality in self.coarse.items():
            if not info.having(split, "coarse"):
                continue
            figures = ("-" if x is None else f"{x:.3f}" for x in (quality.coverage, quality.precision, quality.miou))
            lines.append("              {}: coverage {}, precision {}, mIoU as a prediction {}".format(split, *figures))
        return "\n".join(lines + self._occurrence())

    def _labels(self, split: str) -> str:
        fine, coarse, tags = (self.info.having(split, field) for field in OPTIONAL)
        return f"{fine} with a fine mask, {coarse} with a coarse mask, {tags} with a list of tags"

    def _occurrence(self) -> list[str]:
        """The lines of a table with a row per class and a column per split."""
        columns = [["", *self.info.classes]]
        for split, (images, pixels) in self.occurs.items():
            total = sum(pixels)
            shares = [f" {100 * count / total:5.1f}%" if total else "" for count in pixels]
            cells = [f"{n}{share}" if n else "none" for n, share in zip(images, shares, strict=True)]
            columns.append([split, *cells])
        widths = [max(map(len, column)) for column in columns]
        rows = ["  images that show a class, and its share of the pixels of fine masks"]
        for name, *cells in zip(*columns, strict=True):
            shown = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
            rows.append(f"    {name:<{widths[0]}}  {shown}")
        return rows


def default_data_dir() -> pathlib.Path:
    """`$TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def builder_class(name: str) -> tuple[type[SegmentationBuilder], str | None]:
    """Returns the builder of a dataset, and the part of its name after the slash ("voc/animals"), or None.

    Args:
      name: a key of `BUILDERS`, or "MODULE:CLASS" of the user's own builder, whose module is imported already.

    Raises:
      InputError: there is no such dataset, or its module is not imported.
    """
    from scarce_jax.data.builders import BUILDERS  # not at the top: the builders import this module

    if ":" in name:
        return _outside(name), None
    head, _, rest = name.partition("/")
    if name in BUILDERS and not BUILDERS[name].NAMED:
        return BUILDERS[name], rest or None
    if head in BUILDERS and BUILDERS[head].NAMED:
        if not _NAME.fullmatch(rest):
            raise InputError(
                f"dataset {name!r}: expected {head}/NAME with a name of your choice, of a-z, 0-9, - and _, such as "
                f"{head}/pets"
            )
        return BUILDERS[head], rest
    known = ", ".join(f"{key}/NAME" if BUILDERS[key].NAMED else key for key in sorted(BUILDERS))
    raise InputError(f"no dataset is called {name!r}{nearest(name, BUILDERS)}; expected one of: {known}")


def _outside(name: str) -> type[SegmentationBuilder]:
    """The user's own builder, from a module that this process has imported."""
    from scarce_jax.data.builders import SegmentationBuilder

    module, _, attribute = name.partition(":")
    if module not in sys.modules:
        raise InputError(
            f"dataset {name!r}: its module is not imported, and a name in a run folder imports none; import it "
            f"before, or, if you trust who made the folder, allow it with --allow-import (allow_import=True)"
        )
    builder = getattr(sys.modules[module], attribute, None)
    if builder is None:
        raise InputError(f"dataset {name!r}: module {module!r} has no attribute {attribute!r}; expected MODULE:CLASS")
    if not (isinstance(builder, type) and issubclass(builder, SegmentationBuilder)):
        raise InputError(f"dataset {name!r}: {attribute} is no subclass of scarce_jax's SegmentationBuilder")
    return builder


def import_builder(name: str) -> None:
    """Imports the module of a dataset "MODULE:CLASS", which runs its code; for a name that the user gave.

    Raises:
      InputError: the module cannot be imported.
    """
    module, colon, _ = name.partition(":")
    if not colon:
        return
    try:
        importlib.import_module(module)
    except Exception as error:  # A module may raise anything.
        raise InputError(
            f"dataset {name!r}: cannot be imported ({error}); expected MODULE:CLASS, the module installed or in the "
            f"current folder"
        ) from error


def is_generated(name: str) -> bool:
    """Whether a dataset is drawn by a program, so that it needs no source."""
    from scarce_jax.data.builders import BUILDERS  # not at the top: the builders import this module

    return name in BUILDERS and not BUILDERS[name].HOLDS


def dataset_dir(name: str, data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the folder of a dataset, prepared or not; raises InputError for an unknown name."""
    builder, _ = builder_class(name)
    return data_root(data_dir) / (builder.name if ":" in name else name) / str(builder.VERSION)


def is_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether a dataset is prepared, with all its files.

    Raises:
      InputError: the name is unknown, or its folder holds another dataset.
    """
    try:
        return read_metadata(dataset_dir(name, data_dir)) is not None
    except DamagedDataset:
        return False


def load_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> Prepared:
    """Reads the facts of a prepared dataset.

    Raises:
      InputError: the name is unknown, or the dataset is not prepared or damaged.
    """
    directory = dataset_dir(name, data_dir)
    try:
        metadata = read_metadata(directory)
    except DamagedDataset as error:
        raise InputError(f"dataset {name}: {error}; run: {prepare_command(name, data_dir, again=True)}") from error
    if metadata is None:
        raise InputError(
            f"dataset {name} is not prepared in {data_root(data_dir)}; run: {prepare_command(name, data_dir)}"
        )
    lacking = {split: counts for split, counts in metadata["lacking"].items() if counts}
    return Prepared(
        info=DatasetInfo.of_json(metadata, name, splits=metadata["splits"], lacking=lacking),
        version=metadata["version"],
        directory=directory,
        bytes=sum(path.stat().st_size for path in directory.iterdir()),
        tags_from=metadata["tags_from"],
        coarse_from=metadata["coarse_from"],
        coarse={split: CoarseQuality(**quality) for split, quality in metadata["coarse"].items()},
        occurs={split: (counts["images"], counts["pixels"]) for split, counts in metadata["counted"].items()},
        shards={split: tuple(shards.items()) for split, shards in metadata["shards"].items()},
    )


def load_info(name: str, data_dir: str | os.PathLike[str] | None = None) -> DatasetInfo:
    """Returns `load_prepared(...).info`."""
    return load_prepared(name, data_dir).info


def prepare_command(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    again: bool = False,
    source: str | os.PathLike[str] | None = None,
    flags: Iterable[str] = (),
) -> str:
    """Returns the command that prepares a dataset in `data_dir`.

    Args:
      again: replaces a prepared one.
      source: its source folder; None stands for the user's choice.
      flags: further flags with their values, such as "--val 0.2".
    """
    builder, _ = builder_class(name)
    folder = "DIR" if source is None else shlex.quote(str(source))
    words = ["scarce-jax prepare", name, *([f"--source {folder}"] if builder.HOLDS else [])]
    words += ["--again"] if again else []
    if data_root(data_dir) != default_data_dir():
        words.append(f"--data-dir {shlex.quote(str(data_root(data_dir)))}")
    return " ".join((*words, *flags))


def data_root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Resolves the folder of all prepared datasets; None is `default_data_dir()`."""
    return default_data_dir() if data_dir is None else pathlib.Path(data_dir).expanduser()
