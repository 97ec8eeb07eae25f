"""Finding prepared datasets, and what is known of them from their folder alone."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pathlib
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scarce_jax.data.coarse import CoarseQuality
from scarce_jax.data.schema import OPTIONAL, DatasetInfo
from scarce_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from scarce_jax.data.builders.base import SegmentationBuilder

METADATA = "metadata.json"
_NAME = re.compile(r"[a-z0-9_-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared dataset, for printing (`str`) and for reading.

    Attributes:
      info: its facts, with the number of examples of each split that it holds.
      version: version of the builder that made it; of a dataset that users name with the hash of its content.
      directory: what `tfds.builder_from_directory` reads.
      bytes: its size on disk.
      tags_from: where the image tags came from.
      coarse_from: where the coarse masks came from.
      coarse: split -> how good they are.
      occurs: split -> (images, pixels), each with one number per class: images that show it by their fine mask or
        tags, and pixels in fine masks.
    """

    info: DatasetInfo
    version: str
    directory: pathlib.Path
    bytes: int
    tags_from: str
    coarse_from: str
    coarse: Mapping[str, CoarseQuality]
    occurs: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

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
            figures = ", ".join(
                f"{label} {'-' if value is None else f'{value:.3f}'}"
                for label, value in (
                    ("coverage", quality.coverage),
                    ("precision", quality.precision),
                    ("mIoU as a prediction", quality.miou),
                )
            )
            lines.append(f"              {split}: {figures}")
        return "\n".join(lines + self._occurrence())

    def _labels(self, split: str) -> str:
        fine, coarse, tags = (self.info.having(split, field) for field in OPTIONAL)
        return f"{fine} with a fine mask, {coarse} with a coarse mask, {tags} with a list of tags"

    def _occurrence(self) -> list[str]:
        """A row per class, a column per split."""
        columns = [["", *self.info.classes]]
        for split, (images, pixels) in self.occurs.items():
            shares = [f"{100 * count / max(sum(pixels), 1):.1f}%" for count in pixels]
            cells = [f"{n} {share:>6}" if n else "none" for n, share in zip(images, shares, strict=True)]
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
    """The builder of a dataset and the config after the slash of its name ("voc/animals"), or None.

    Args:
      name: one of ours, or "MODULE:CLASS" for a builder of the user's that can be imported.

    Raises:
      InputError: there is no such dataset; the message has the nearest name and all of them.
    """
    from scarce_jax.data.builders import BUILDERS  # not at the top: the builders import this module

    if ":" in name:
        return _imported(name), None
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
    raise InputError(f"no dataset is called {name!r}{nearest(name, BUILDERS)}; there are: {known}")


def _imported(name: str) -> type[SegmentationBuilder]:
    from scarce_jax.data.builders import SegmentationBuilder

    module, _, attribute = name.partition(":")
    try:
        builder = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"dataset {name!r}: cannot be imported ({error}); expected MODULE:CLASS, the module installed or in the "
            f"current folder"
        ) from error
    if not (isinstance(builder, type) and issubclass(builder, SegmentationBuilder)):
        raise InputError(f"dataset {name!r}: {attribute} is no subclass of scarce_jax's SegmentationBuilder")
    return builder


def is_generated(name: str) -> bool:
    """True for a dataset of ours that a program draws, so that it can be prepared on first use."""
    from scarce_jax.data.builders import BUILDERS  # not at the top: the builders import this module

    return name in BUILDERS and not BUILDERS[name].HOLDS


def dataset_dir(name: str, data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """The folder that a prepared dataset has, whether or not it is there. Raises InputError for an unknown name."""
    builder, _ = builder_class(name)
    return data_root(data_dir) / (builder.name if ":" in name else name) / str(builder.VERSION)


def is_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> bool:
    """True if the dataset is there with all its files. Raises InputError for an unknown name."""
    return read_metadata(dataset_dir(name, data_dir)) is not None


def load_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> Prepared:
    """What is known of a prepared dataset, from its folder alone.

    Raises:
      InputError: the name is unknown, or the dataset is not prepared: the message has the command that prepares it.
    """
    directory = dataset_dir(name, data_dir)
    metadata = read_metadata(directory)
    if metadata is None:
        raise InputError(
            f"dataset {name} is not prepared in {data_root(data_dir)}; run: {prepare_command(name, data_dir)}"
        )
    try:
        return _from_metadata(name, directory, metadata)
    except KeyError as error:
        raise InputError(
            f"{directory / METADATA}: has no {error}; run: {prepare_command(name, data_dir, again=True)}"
        ) from error


def _from_metadata(name: str, directory: pathlib.Path, metadata: Mapping[str, Any]) -> Prepared:
    native_ids = metadata["native_ids"]
    return Prepared(
        info=DatasetInfo(
            name=name,
            classes=tuple(metadata["classes"]),
            palette=tuple(tuple(colour) for colour in metadata["palette"]),
            background=metadata["background"],
            splits=metadata["splits"],
            native_ids=None if native_ids is None else tuple(native_ids),
            lacking={split: counts for split, counts in metadata["lacking"].items() if counts},
        ),
        version=metadata["version"],
        directory=directory,
        bytes=sum(path.stat().st_size for path in directory.iterdir()),
        tags_from=metadata["tags_from"],
        coarse_from=metadata["coarse_from"],
        coarse={split: CoarseQuality(**quality) for split, quality in metadata["coarse"].items()},
        occurs={
            split: (tuple(counts["images"]), tuple(counts["pixels"])) for split, counts in metadata["counted"].items()
        },
    )


def load_info(name: str, data_dir: str | os.PathLike[str] | None = None) -> DatasetInfo:
    """The facts of a prepared dataset; raises as `load_prepared`, which also has its version."""
    return load_prepared(name, data_dir).info


def prepare_command(name: str, data_dir: str | os.PathLike[str] | None = None, *, again: bool = False) -> str:
    """The command line that prepares a dataset where `data_dir` says, `again` where it is there already."""
    builder, _ = builder_class(name)
    words = ["scarce-jax prepare", name, *(["--source DIR"] if builder.HOLDS else []), *(["--again"] if again else [])]
    if data_root(data_dir) != default_data_dir():
        words.append(f"--data-dir {shlex.quote(str(data_root(data_dir)))}")
    return " ".join(words)


def data_root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The folder of all prepared datasets; None is `default_data_dir()`."""
    return default_data_dir() if data_dir is None else pathlib.Path(data_dir).expanduser()


def read_metadata(directory: pathlib.Path) -> dict[str, Any] | None:
    """The content of a prepared folder's metadata.json; None unless the folder and all its records are there."""
    try:
        metadata = json.loads((directory / METADATA).read_text())
        files = metadata["files"]
        sizes = {file: (directory / file).stat().st_size for file in files}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # tfds writes dataset_info.json last.
    return metadata if sizes == files and (directory / "dataset_info.json").exists() else None
