"""The metadata.json of a prepared dataset, and whether its files are those that it lists."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from scarce_jax.data.coarse import CoarseQuality
from scarce_jax.data.files import CHECKSUM, is_plain_name, read_checked_json
from scarce_jax.data.schema import Byte, NativeId
from scarce_jax.errors import InputError

METADATA = "metadata.json"


class DamagedDataset(InputError):
    """A file of a prepared dataset is missing, changed or damaged."""


@dataclasses.dataclass
class _Counts:
    images: list[int]
    pixels: list[int]


@dataclasses.dataclass
class _Metadata:
    """What metadata.json holds at least."""

    name: str
    version: str
    classes: list[str]
    palette: list[tuple[Byte, Byte, Byte]]
    background: int | None
    native_ids: list[NativeId] | None
    splits: dict[str, int]
    tags_from: str
    coarse_from: str
    coarse: dict[str, CoarseQuality]
    counted: dict[str, _Counts]
    lacking: dict[str, dict[str, int]]
    shards: dict[str, dict[str, int]]
    files: dict[str, int]
    void_ids: list[NativeId] = dataclasses.field(default_factory=list)


def read_metadata(directory: pathlib.Path) -> dict[str, Any] | None:
    """Reads metadata.json from a dataset's folder; None if there is no dataset.

    Raises:
      DamagedDataset: metadata.json is changed or damaged, or a file of the dataset is missing or has another size.
      InputError: the folder holds a dataset of another maker, or one without its metadata.json.
    """
    path = directory / METADATA
    if not path.exists():
        # Only this library writes an index.
        if any(directory.glob("index-*.npz")):
            raise DamagedDataset(f"{path}: is missing")
        # tfds writes dataset_info.json last.
        if (directory / "dataset_info.json").exists():
            raise InputError(
                f"{path}: is missing; {directory} holds another tfds dataset of this name, or a damaged one: choose "
                f"another --data-dir, or move the folder away"
            )
        return None
    try:
        metadata = read_checked_json(path, _Metadata)
    except InputError as error:
        if _is_of_another(path):
            raise InputError(
                f"{directory}: holds another tfds dataset of this name; choose another --data-dir, or move the "
                f"folder away"
            ) from error
        raise DamagedDataset(str(error)) from error
    for name, size in {**metadata["files"], "dataset_info.json": None}.items():
        file = directory / name
        if not is_plain_name(name) or file.is_symlink() or not file.is_file():
            raise DamagedDataset(f"{file}: is missing, or not a plain file in the folder")
        if size not in (None, file.stat().st_size):
            raise DamagedDataset(f"{file}: has {file.stat().st_size} bytes, expected {size}")
    lists = [metadata["palette"], metadata["native_ids"] or metadata["classes"]]
    lists += [counts[key] for counts in metadata["counted"].values() for key in ("images", "pixels")]
    if {len(values) for values in lists} != {len(metadata["classes"])}:
        raise DamagedDataset(f"{path}: its classes, colours and counts do not fit together")
    read = [f"index-{split}.npz" for split in metadata["splits"]]
    shards = [shard for shards in metadata["shards"].values() for shard in shards.items()]
    read += [name for name, _ in shards]
    if (
        any(count < 1 for _, count in shards)
        or not metadata["files"].keys() >= set(read)
        or metadata["shards"].keys() != metadata["splits"].keys()
    ):
        raise DamagedDataset(f"{path}: its names of splits and files do not belong together")
    return metadata


def _is_of_another(path: pathlib.Path) -> bool:
    """Whether a metadata.json is whole, and none of this library's."""
    try:
        metadata = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not (isinstance(metadata, dict) and {"coarse_from", "lacking", CHECKSUM} & metadata.keys())
