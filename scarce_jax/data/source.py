"""From prepared examples to rows of fixed shape: random access, whole-frame resizing, decoding threads."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import cv2
import grain
import numpy as np

from scarce_jax.data.builders.prepared import load_prepared, prepare_command
from scarce_jax.data.images import resize_image, resize_label, wxh
from scarce_jax.data.index import Index, index_path
from scarce_jax.data.records import Records
from scarce_jax.data.schema import IGNORE, LABEL_FIELDS
from scarce_jax.errors import InputError

Row = dict[str, np.ndarray]

ENCODED = ("image", *LABEL_FIELDS)


class Reader:
    """Random access to the examples of one split of a prepared dataset, without TensorFlow.

    Opening it reads the split's index and no record.

    Attributes:
      info: the dataset's facts.
      version: of the prepared dataset.
      ids: example ids, in the order of the records.
      tags: uint8 [N, K] multi-hot.
      sizes: int32 [N, 2], height and width of every image.
      has: for each of `schema.OPTIONAL`, bool [N]: which examples have the field.

    Raises:
      InputError: the dataset is not prepared (with the command that prepares it), lacks the split, or its index is
        missing or damaged.
    """

    def __init__(self, dataset: str, split: str, data_dir: str | None):
        import tensorflow_datasets as tfds

        self.dataset, self.split = dataset, split
        prepared = load_prepared(dataset, data_dir)
        self.info, self.version = prepared.info, prepared.version
        if not self.info.splits.get(split):
            raise InputError(
                f"dataset {dataset}: no split {split!r}; it was prepared with {sorted(self.info.splits)}, so name one "
                f"of these, or prepare it again from a source that holds {split!r}"
            )
        self._again = f"prepare the dataset again: {prepare_command(dataset, data_dir, again=True)}"
        index = self._read_index(index_path(prepared.directory, split))
        self.ids, self.tags, self.sizes, self.has = index.ids, index.tags, index.sizes, index.has
        decoders = {key: tfds.decode.SkipDecoding() for key in ENCODED}
        self._records = tfds.builder_from_directory(prepared.directory).as_data_source(split, decoders=decoders)

    def _read_index(self, path: pathlib.Path) -> Index:
        where = f"dataset {self.dataset}, split {self.split}: {path}"
        try:
            index = Index.read(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{where}: the index of the examples cannot be read ({error}); {self._again}") from error
        expected = self.info.splits[self.split], len(self.info.classes)
        if index.tags.shape != expected:
            raise InputError(
                f"{where}: the index has {index.tags.shape[0]} examples and {index.tags.shape[1]} classes, the dataset "
                f"{expected[0]} and {expected[1]}; {self._again}"
            )
        return index

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Id -> position."""
        return {example_id: i for i, example_id in enumerate(self.ids)}

    @functools.cached_property
    def lacking(self) -> dict[str, frozenset[str]]:
        """For each of `schema.OPTIONAL` the ids of the examples that do not have it."""
        return {field: frozenset(itertools.compress(self.ids, ~has)) for field, has in self.has.items()}

    def read(self, i: int) -> Example:
        """Example i.

        Raises:
          InputError: it cannot be read, or is not the example that the index says. Decoding raises it too, where the
            field is asked for.
        """
        where = f"dataset {self.dataset}, split {self.split}: example {self.ids[i]}"
        try:
            record = self._records[i]
        except Exception as error:
            raise InputError(f"{where} cannot be read ({type(error).__name__}: {error}); {self._again}") from error
        if record["id"].decode() != self.ids[i]:
            raise InputError(f"{where}: the record is of {record['id'].decode()!r}; {self._again}")
        absent = frozenset(field for field, has in self.has.items() if not has[i])
        return Example(record, tuple(self.sizes[i].tolist()), absent, where, self._again)


class Example(Mapping[str, Any]):
    """A prepared example: image uint8 [H, W, 3] RGB, fine and coarse uint8 [H, W], tags uint8 [K], id text.

    A field of `schema.OPTIONAL` that it lacks is None. Images and masks are decoded each time they are asked for:
    decoding is nearly all that reading costs.
    """

    def __init__(
        self, record: Mapping[str, Any], size: tuple[int, int], absent: Container[str], where: str, again: str
    ):
        self._record, self._size, self._absent, self._where, self._again = record, size, absent, where, again

    def __getitem__(self, key: str) -> Any:
        value = self._record[key]
        if key == "id":
            return value.decode()
        if key in self._absent:
            return None
        if key not in ENCODED:
            return value
        try:
            decoded = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED)
            array = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if key == "image" else decoded.reshape(decoded.shape[:2])
        except Exception as error:
            raise InputError(
                f"{self._where}: its {key} cannot be decoded ({type(error).__name__}); {self._again}"
            ) from error
        if array.shape[:2] != self._size:
            raise InputError(
                f"{self._where}: its {key} is {wxh(array.shape)} pixels, {wxh(self._size)} by the index; {self._again}"
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)


@dataclasses.dataclass(frozen=True)
class RecordField:
    """A field of an inference pass's records, joined by example id; or with `read` what that makes of an entry."""

    records: Records
    name: str
    read: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None

    def get(self, example: Mapping[str, Any]) -> np.ndarray | None:
        """The example's array, of its own shape; None without an entry."""
        if example["id"] not in self.records.ids:
            return None
        entry = self.records.read(example["id"])
        return entry[self.name] if self.read is None else self.read(entry)


@dataclasses.dataclass(frozen=True)
class ExampleField:
    """A field of the dataset; with `ids` only these examples show it: those to which a label budget grants it."""

    name: str
    ids: frozenset[str] | None = None

    def get(self, example: Example) -> np.ndarray | None:
        return example[self.name] if self.ids is None or example["id"] in self.ids else None


Field = ExampleField | RecordField


@dataclasses.dataclass
class Rows:
    """A source, opened: random access to rows of fixed shape.

    A row is `image` uint8 [H, W, 3], `label` uint8 [H, W] (where `labels` is given), every field, and `height`,
    `width` int32: the valid part of the canvas is [:height, :width]; beyond it images are 0 and masks IGNORE.

    Attributes:
      indices: examples of the reader, one per row.
      labels: in order of preference, what may stand in `label`.
      size: (height, width) of resized whole frames; None keeps native sizes on a canvas of the largest.
    """

    reader: Reader
    indices: Sequence[int]
    fields: tuple[Field, ...] = ()
    labels: tuple[Field, ...] = ()
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.reader.ids[i] for i in self.indices)

    @functools.cached_property
    def canvas(self) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        return tuple(self.reader.sizes[list(self.indices)].max(axis=0).tolist())

    def example(self, k: int) -> dict[str, Any]:
        """Row k's example as it was prepared, with `label` and record fields joined, nothing resized.

        Raises:
          InputError: it lacks a field, or all of `labels`.
        """
        example = self.reader.read(self.indices[k])
        arrays = {"image": example["image"], "id": example["id"]}
        for field in self.fields:
            arrays[field.name] = self._first(example, (field,))
        if self.labels:
            arrays["label"] = self._first(example, self.labels)
        return arrays

    def _first(self, example: Example, fields: Sequence[Field]) -> np.ndarray:
        """Of the first of the fields that the example has."""
        value = next((value for field in fields if (value := field.get(example)) is not None), None)
        if value is None:
            names = " or ".join(repr(field.name) for field in fields)
            raise InputError(f"dataset {self.reader.dataset}: example {example['id']} has no {names}")
        return value

    @staticmethod
    def sized(example: Mapping[str, Any], size: tuple[int, int], canvas: tuple[int, int]) -> Row:
        """An example's arrays brought to a size and onto a canvas."""
        height, width = size
        row: Row = {"height": np.int32(height), "width": np.int32(width)}
        for key, value in example.items():
            if key == "image":
                row[key] = _pad(resize_image(value, (height, width)), canvas, 0)
            elif key != "id":
                is_mask = value.dtype == np.uint8 and value.ndim == 2
                row[key] = _pad(resize_label(value, (height, width)), canvas, IGNORE) if is_mask else value
        return row

    def __getitem__(self, k: int) -> Row:
        example = self.example(k)
        return self.sized(example, self.size or example["image"].shape[:2], self.canvas)


def _pad(array: np.ndarray, canvas: tuple[int, int], fill: int) -> np.ndarray:
    if array.shape[:2] == tuple(canvas):
        return array
    out = np.full((*canvas, *array.shape[2:]), fill, array.dtype)
    out[: array.shape[0], : array.shape[1]] = array
    return out


class _Source:
    """What Grain reads: a length and a function of the position."""

    def __init__(self, length: int, get: Callable[[int], Any], name: str):
        self._length, self._get, self._name = length, get, name

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> Any:
        return self._get(position)

    def __repr__(self) -> str:
        return self._name


def stream(
    get: Callable[[int], Row],
    length: int,
    batch: int,
    *,
    shard: tuple[int, int] = (0, 1),
    start: int = 0,
    threads: int,
) -> Iterator[Row]:
    """Batches of `get(position)`, made in threads a few batches ahead.

    Args:
      length: number of positions; a multiple of the global batch.
      batch: rows in the global batch.
      shard: (index, count) of this process: it gets contiguous rows of each global batch.
      start: the first global batch.
      threads: decoding threads.

    Yields:
      Dicts of arrays with a leading axis of batch / count.
    """
    index, count = shard
    dataset = grain.MapDataset.source(_Source(length, get, "rows")).batch(batch // count)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=3)
    return iter(dataset[start * count + index :: count].to_iter_dataset(options))


def load_all(rows: Rows, threads: int) -> Row:
    """Every row, stacked: arrays with a leading axis of len(rows)."""
    arrays: Row | None = None
    source = grain.MapDataset.source(_Source(len(rows), rows.__getitem__, "rows"))
    for k, row in enumerate(source.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=16))):
        if arrays is None:
            arrays = {key: np.empty((len(rows), *np.shape(v)), np.asarray(v).dtype) for key, v in row.items()}
        for key, value in row.items():
            arrays[key][k] = value
    return arrays
