"""Reading prepared examples as rows of fixed shape, with random access and decoding threads."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import cv2
import grain
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from scarce_jax.data.builders.base import record_features
from scarce_jax.data.builders.prepared import load_prepared, prepare_command
from scarce_jax.data.images import Fit, decode_image, fitted, resize_image, resize_label, wxh
from scarce_jax.data.index import Index, index_path
from scarce_jax.data.records import Records
from scarce_jax.data.schema import IGNORE, LABEL_FIELDS
from scarce_jax.errors import InputError

Row = dict[str, np.ndarray]

ENCODED = ("image", *LABEL_FIELDS)

_DECODERS = {key: tfds.decode.SkipDecoding() for key in ENCODED}


class Reader:
    """Random access to the examples of one split of a prepared dataset, without TensorFlow.

    Opening reads the index of the split and no record.

    Attributes:
      info: facts of the dataset.
      version: the version of the prepared dataset.
      ids: example ids, in the order of the records.
      tags: uint8 [N, K], multi-hot.
      sizes: int32 [N, 2], height and width of every image.
      has: field of `schema.OPTIONAL` -> bool [N], which examples have it.

    Raises:
      InputError: the dataset is not prepared, has no such split, or its index is missing or damaged.
    """

    def __init__(self, dataset: str, split: str, data_dir: str | None):
        self.dataset, self.split = dataset, split
        prepared = load_prepared(dataset, data_dir)
        self.info, self.version = prepared.info, prepared.version
        if not self.info.splits.get(split):
            anew = ""
            if dataset.startswith("folder/") and split == "val":
                command = prepare_command(dataset, data_dir, again=True)
                anew = f"; or take images of train for it: {command} --val 0.2"
            raise InputError(
                f"dataset {dataset}: no split {split!r}; it was prepared with {', '.join(sorted(self.info.splits))}: "
                f"choose one of these with --train-split or --eval-split (of a finished run: --split), or "
                f"--eval-split None to train without measuring{anew}"
            )
        self.pixels = prepared.occurs[split][1]
        self._again = f"prepare the dataset again: {prepare_command(dataset, data_dir, again=True)}"
        path = index_path(prepared.directory, split)
        where = f"dataset {dataset}, split {split}: {path}"
        try:
            index = Index.read(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{where}: the index of the examples cannot be read ({error}); {self._again}") from error
        expected = self.info.splits[split], len(self.info.classes)
        if index.tags.shape != expected:
            raise InputError(
                f"{where}: the index has {index.tags.shape[0]} examples and {index.tags.shape[1]} classes, the dataset "
                f"{expected[0]} and {expected[1]}; {self._again}"
            )
        self.ids, self.tags, self.sizes, self.has = index.ids, index.tags, index.sizes, index.has
        shards = [(prepared.directory / name, count) for name, count in prepared.shards[split]]
        held = sum(count for _, count in shards)
        if held != len(self.ids):
            raise InputError(f"{where}: the index has {len(self.ids)} examples, the files {held}; {self._again}")
        self._shards = list(itertools.chain.from_iterable(itertools.repeat(*shard) for shard in shards))
        # The features are made here and the files opened by name: tfds' own reader would import the classes that
        # features.json names, and a dataset may come from a stranger.
        self._features = record_features(len(self.info.classes))
        self._records = ArrayRecordDataSource([f"{path}[0:{count}]" for path, count in shards])

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Id -> position."""
        return {example_id: i for i, example_id in enumerate(self.ids)}

    @functools.cached_property
    def lacking(self) -> dict[str, frozenset[str]]:
        """Field of `schema.OPTIONAL` -> ids of the examples that do not have it."""
        return {field: frozenset(itertools.compress(self.ids, ~has)) for field, has in self.has.items()}

    def read(self, i: int) -> Example:
        """Reads example i; its image and masks are decoded on access.

        Raises:
          InputError: the record cannot be read, or has another id than the index. Decoding a field raises it too.
        """
        where = f"dataset {self.dataset}, split {self.split}: example {self.ids[i]} of {self._shards[i]}"
        try:
            record = self._features.deserialize_example_np(self._records[i], decoders=_DECODERS)
        except Exception as error:
            raise InputError(f"{where} cannot be read ({type(error).__name__}: {error}); {self._again}") from error
        if record["id"].decode() != self.ids[i]:
            raise InputError(f"{where}: the record is of {record['id'].decode()!r}; {self._again}")
        absent = frozenset(field for field, has in self.has.items() if not has[i])
        return Example(record, tuple(self.sizes[i].tolist()), absent, where, self._again)


class Example(Mapping[str, Any]):
    """A prepared example: image uint8 [H, W, 3] RGB, fine and coarse uint8 [H, W], tags uint8 [K], id str.

    Fields of `schema.OPTIONAL` that it does not have are None. Images and masks are decoded on every access, because
    decoding is most of the cost of reading.
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
            if key == "image":
                array = decode_image(value)
            else:
                decoded = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED)
                array = decoded.reshape(decoded.shape[:2])
        except Exception as error:
            raise InputError(
                f"{self._where}: its {key} cannot be decoded ({type(error).__name__}); {self._again}"
            ) from error
        if array.shape[:2] != self._size:
            raise InputError(
                f"{self._where}: its {key} is {wxh(array.shape)} pixels, expected {wxh(self._size)}, as in the index; "
                f"{self._again}"
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)


@dataclasses.dataclass(frozen=True)
class RecordField:
    """A field of records, joined by example id; with `read`, an array computed from the whole entry."""

    records: Records
    name: str
    read: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None

    def get(self, example: Mapping[str, Any]) -> np.ndarray | None:
        """The array of an example, of any shape; None if the records have no entry for it."""
        if example["id"] not in self.records.ids:
            return None
        entry = self.records.read(example["id"])
        return entry[self.name] if self.read is None else self.read(entry)


@dataclasses.dataclass(frozen=True)
class ExampleField:
    """A field of the dataset; with `ids`, only of these examples: those that the label budget grants it to."""

    name: str
    ids: frozenset[str] | None = None

    def get(self, example: Example) -> np.ndarray | None:
        return example[self.name] if self.ids is None or example["id"] in self.ids else None


Field = ExampleField | RecordField


@dataclasses.dataclass
class Rows:
    """An opened source: random access to rows of fixed shape.

    A row has `image` uint8 [H, W, 3], `label` uint8 [H, W] (if `labels` is not empty), every field, and `height` and
    `width` int32. The valid part of the canvas is [:height, :width]; beyond it images are 0 and masks IGNORE.

    Attributes:
      reader: gives the examples.
      indices: positions of the examples in the reader, one per row.
      fields: further fields of a row.
      labels: sources of `label`, in order of preference: an example takes the first it has.
      size: (height, width) of the canvas to which images are brought; None keeps native sizes, on a canvas that holds
        the largest.
      fit: how images are brought to `size` (see `images.fitted`).
    """

    reader: Reader
    indices: Sequence[int]
    fields: tuple[Field, ...] = ()
    labels: tuple[Field, ...] = ()
    size: tuple[int, int] | None = None
    fit: Fit = "stretch"

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

    def valid(self, native: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the valid part of the canvas, for an image of this native size."""
        return fitted(native, self.size, self.fit)

    def example(self, k: int) -> dict[str, Any]:
        """Returns the example of row k at its native size, with `label` and the fields.

        Raises:
          InputError: the example does not have a field, or none of `labels`.
        """
        example = self.reader.read(self.indices[k])
        arrays = {"image": example["image"], "id": example["id"]}
        for field in self.fields:
            arrays[field.name] = self._first(example, (field,))
        if self.labels:
            arrays["label"] = self._first(example, self.labels)
        return arrays

    def _first(self, example: Example, fields: Sequence[Field]) -> np.ndarray:
        """Returns the first of the fields that the example has."""
        value = next((value for field in fields if (value := field.get(example)) is not None), None)
        if value is None:
            names = " or ".join(repr(field.name) for field in fields)
            raise InputError(f"dataset {self.reader.dataset}: example {example['id']} has no {names}")
        return value

    @staticmethod
    def sized(example: Mapping[str, Any], size: tuple[int, int], canvas: tuple[int, int]) -> Row:
        """Resizes the arrays of an example to `size`, and pads them to `canvas`."""
        height, width = size
        row: Row = {"height": np.int32(height), "width": np.int32(width)}
        for key, value in example.items():
            if key == "image":
                row[key] = pad(resize_image(value, (height, width)), canvas, 0)
            elif key != "id":
                is_mask = value.dtype == np.uint8 and value.ndim == 2
                row[key] = pad(resize_label(value, (height, width)), canvas, IGNORE) if is_mask else value
        return row

    def __getitem__(self, k: int) -> Row:
        example = self.example(k)
        return self.sized(example, self.valid(example["image"].shape[:2]), self.canvas)


def pad(array: np.ndarray, canvas: tuple[int, int], fill: int) -> np.ndarray:
    """Puts an array [h, w, ...] at the top left of a canvas [H, W, ...] of `fill`."""
    if array.shape[:2] == tuple(canvas):
        return array
    out = np.full((*canvas, *array.shape[2:]), fill, array.dtype)
    out[: array.shape[0], : array.shape[1]] = array
    return out


def stream(
    get: Callable[[int], Row],
    length: int,
    batch: int,
    *,
    shard: tuple[int, int] = (0, 1),
    start: int = 0,
    threads: int,
) -> Iterator[Row]:
    """Yields batches of `get(position)`, computed in threads a few batches ahead.

    Args:
      get: position -> row.
      length: number of positions, a multiple of the global batch.
      batch: rows in a global batch.
      shard: (index, count) of this process, which gets contiguous rows of each global batch.
      start: number of the first global batch.
      threads: decoding threads.

    Yields:
      Dicts of arrays with a leading axis of batch / count.
    """
    index, count = shard
    dataset = grain.MapDataset.range(length).map(get).batch(batch // count)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=3)
    return iter(dataset[start * count + index :: count].to_iter_dataset(options))


def load_all(rows: Rows, threads: int) -> Row:
    """Reads all rows, stacked: arrays with a leading axis of length len(rows)."""
    arrays: Row | None = None
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=16)
    for k, row in enumerate(grain.MapDataset.range(len(rows)).map(rows.__getitem__).to_iter_dataset(options)):
        if arrays is None:
            arrays = {key: np.empty((len(rows), *np.shape(v)), np.asarray(v).dtype) for key, v in row.items()}
        for key, value in row.items():
            arrays[key][k] = value
    return arrays
