"""The base class of all builders: writes examples as ArrayRecord files with tfds, without TensorFlow.

A prepared dataset is a self-contained folder `<data_dir>/<name>/<version>`: `metadata.json` holds the facts of
`schema.DatasetInfo`, the origin of tags and coarse masks, how often each class occurs, and the quality of the coarse
masks; `index-<split>.npz` is the `Index` of a split; `source.json.gz` lists the files that it was prepared from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import logging
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.core.splits import SplitInfo
from tqdm import tqdm

from scarce_jax.data.builders.files import Example, encode_mask
from scarce_jax.data.builders.listing import list_source, write_listing
from scarce_jax.data.builders.tally import Tally
from scarce_jax.data.coarse import CoarseSettings, example_rng, simulate_coarse
from scarce_jax.data.files import seal
from scarce_jax.data.index import index_path
from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.errors import InputError, plural

log = logging.getLogger("scarce_jax")

SIMULATED = "simulated from the fine masks (eroded, simplified, jittered polygons)"


def record_features(classes: int) -> tfds.features.FeaturesDict:
    """The features of a record, for a number of classes: what tfds writes to features.json, which is not read."""
    mask = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "fine": mask,
            "coarse": mask,
            "tags": tfds.features.Tensor(shape=(classes,), dtype=np.uint8),
            "id": tfds.features.Text(),
        }
    )


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing. tfds would search its own store for the dataset, and leave a temporary folder behind."""


def _shards(info: SplitInfo) -> dict[str, int]:
    """The files of a split, in order, with their numbers of records."""
    return dict(zip(sorted(info.filenames), info.shard_lengths, strict=True))


class SegmentationBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of images with fine masks, coarse masks and image tags, any of which an example may lack.

    A subclass sets `VERSION`, `FACTS` (or implements `describe`), and `HOLDS` if it reads a source folder; and it
    implements `split_examples`. It is not added to tfds' registry, where `voc` and `coco` are other datasets.

    Attributes:
      source: the source folder, or None.
      variant: the part of the dataset's name after the slash, or None.
      facts: facts of the dataset.
      tags_from: the origin of the tags, in words; `split_examples` may set it.
      coarse_from: the origin of the coarse masks, in words; `split_examples` may set it.
      flags: how the source is read, where the user says so; another reading is another dataset.
      others: files and folders beside the source that decide the content.
    """

    HOLDS: ClassVar[str] = ""
    """The expected content of the source folder, for messages; empty if the dataset needs none."""
    NAMED: ClassVar[bool] = False
    """The user chooses the part of the name after the slash; the version includes a hash of the content."""
    VARIES: ClassVar[bool] = False
    """Sources may hold more or less of the dataset; the version includes a hash of the content."""
    FACTS: ClassVar[DatasetInfo | None] = None
    """Facts of a dataset with fixed classes."""
    tags_from: str = "the fine masks"
    coarse_from: str = SIMULATED
    flags: tuple[str, ...] = ()
    others: tuple[pathlib.Path, ...] = ()
    COARSE: ClassVar[CoarseSettings] = CoarseSettings()
    SHARD_BYTES: ClassVar[int] = 256 << 20

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**{"skip_registration": True, **kwargs})

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str],
        source: pathlib.Path | None = None,
        config: str | None = None,
    ):
        # Set before tfds initialises the builder, which needs the features and so the classes.
        self.source, self.variant = source, config
        self.facts = self.describe()
        builder_config = None if config is None else tfds.core.BuilderConfig(name=config)
        super().__init__(data_dir=data_dir, config=builder_config, file_format="array_record")

    def _create_builder_config(self, builder_config: Any, version: Any) -> tfds.core.BuilderConfig | None:
        # tfds would warn about a config that the class does not list. For a listed one it would write a file that a
        # failed build leaves behind.
        return builder_config

    def describe(self) -> DatasetInfo:
        """Returns the facts of the dataset. `splits` may be empty: they are counted when the examples are written."""
        if self.FACTS is None:
            raise NotImplementedError(f"{type(self).__name__} needs FACTS or describe()")
        return self.FACTS

    def split_examples(self) -> Mapping[str, Iterable[Example]]:
        """Returns the examples of each split that the source holds; may raise InputError, also while they are read."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            features=record_features(len(self.facts.classes)),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    # tfds declares these two abstract; `_generate_splits` calls neither.
    def _split_generators(self, dl_manager: Any) -> Any:
        raise NotImplementedError

    _generate_examples = _split_generators

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[SplitInfo]:
        """Writes the records in the order of the source.

        tfds' own writer shuffles them first, which uses TensorFlow for splits above 1 GiB.
        """
        # Before the files are read, so that a change from then on is seen as one.
        listing = None if self.source is None else list_source(self.source, self.flags, self.others)
        splits = self.split_examples()
        written = {name: self._write_split(name, examples) for name, examples in splits.items()}
        if self.NAMED:  # The splits of a published dataset are not the user's choice.
            self._warn_of_copies({name: tally for name, (_, tally) in written.items()})
        infos = [info for info, _ in written.values()]
        indices = {name: tally.index() for name, (_, tally) in written.items()}
        for name, index in indices.items():
            index.write(index_path(pathlib.Path(self.data_dir), name))
        if listing is not None:
            write_listing(listing, pathlib.Path(self.data_dir))
        content = hashlib.sha256(repr(self.facts).encode())
        for name, (_, tally) in written.items():
            content.update(name.encode() + tally.content)
        metadata = dict(
            name=self.facts.name,
            version=f"{self.version}+{content.hexdigest()[:8]}" if self.NAMED or self.VARIES else str(self.version),
            classes=self.facts.classes,
            palette=self.facts.palette,
            background=self.facts.background,
            native_ids=self.facts.native_ids,
            void_ids=self.facts.void_ids,
            splits={info.name: info.num_examples for info in infos},
            tags_from=self.tags_from,
            coarse_from=self.coarse_from,
            coarse={name: dataclasses.asdict(tally.meter.quality()) for name, (_, tally) in written.items()},
            counted={
                name: {"images": tally.images.tolist(), "pixels": tally.pixels.tolist()}
                for name, (_, tally) in written.items()
            },
            lacking={name: index.lacking() for name, index in indices.items()},
            shards={info.name: _shards(info) for info in infos},
            files={path.name: path.stat().st_size for path in sorted(pathlib.Path(self.data_dir).iterdir())},
        )
        self.info.metadata.update(seal(metadata))
        return infos

    def _warn_of_copies(self, tallies: Mapping[str, Tally]) -> None:
        """Tells which images of train are in another split under another id; `train` refuses equal ids."""
        train = tallies["train"].files if "train" in tallies else {}
        for split, tally in tallies.items():
            copies = [(tally.files[file], train[file]) for file in tally.files.keys() & train.keys()]
            copies = sorted((copy, first) for copy, first in copies if copy != first)
            if copies:
                log.warning(
                    "%s: the split %s has %s of train (%s is %s), so that measurements there are too high; remove "
                    "them from one of the two",
                    self.facts.name,
                    split,
                    plural(len(copies), "image"),
                    *copies[0],
                )

    def _write_split(self, split: str, examples: Iterable[Example]) -> tuple[SplitInfo, Tally]:
        folder = pathlib.Path(self.data_dir)
        serializer = example_serializer.ExampleSerializer(self.info.features.get_serialized_info())
        tally = Tally(len(self.facts.classes))
        lengths: list[int] = []
        sizes: list[int] = []
        with contextlib.ExitStack() as stack:
            # disable=None shows the progress bar only on a terminal.
            for example in tqdm(examples, f"{self.facts.name} {split}", unit=" images", leave=False, disable=None):
                if example.id in tally:
                    raise InputError(
                        f"{self.source or self.name}: id {example.id!r} is twice in split {split!r}; rename one of them"
                    )
                fields = self.info.features.encode_example(self._fields(example, tally))
                record = serializer.serialize_example(fields)
                if not sizes or sizes[-1] + len(record) > self.SHARD_BYTES:
                    stack.close()
                    # One record per group, as tfds writes them, for random access.
                    writer = ArrayRecordWriter(str(folder / f"{split}-{len(sizes)}"), "group_size:1")
                    stack.callback(writer.close)
                    lengths.append(0)
                    sizes.append(0)
                writer.write(record)
                lengths[-1] += 1
                sizes[-1] += len(record)
        if not len(tally):
            raise InputError(f"{self.source or self.name}: split {split!r} has no images, expected at least one")
        template = self._get_filename_template(split)
        for i in range(len(sizes)):
            path = template.sharded_filepath(shard_index=i, num_shards=len(sizes))
            (folder / f"{split}-{i}").rename(os.fspath(path))
        info = SplitInfo(name=split, shard_lengths=lengths, num_bytes=sum(sizes), filename_template=template)
        return info, tally

    def _fields(self, example: Example, tally: Tally) -> dict[str, Any]:
        fine, coarse, tags = example.fine, example.coarse, example.tags
        if coarse is None and fine is not None and example.simulate:
            rng = example_rng(self.facts.name, example.id)
            coarse = simulate_coarse(fine, rng=rng, settings=self.COARSE)
        if tags is None and fine is not None:
            classes = len(self.facts.classes)
            tags = (np.bincount(fine[fine != IGNORE], minlength=classes) > 0).astype(np.uint8)
            if self.facts.background is not None:
                tags[self.facts.background] = 0
        width, height = Image.open(io.BytesIO(example.image)).size
        tally.add(example.id, example.image, (height, width), fine, coarse, tags)
        absent = np.full((height, width), IGNORE, np.uint8)
        return {
            "image": example.image,
            "fine": encode_mask(absent if fine is None else fine),
            "coarse": encode_mask(absent if coarse is None else coarse),
            "tags": np.zeros(len(self.facts.classes), np.uint8) if tags is None else tags,
            "id": example.id,
        }

    # tfds would print the size and path of the download; `prepare` prints a summary instead.
    def _log_download_bytes(self) -> None:
        pass

    _log_download_done = _log_download_bytes
