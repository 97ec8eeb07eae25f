"""Preparing datasets as ArrayRecord files with tfds, without TensorFlow, and finding them again.

A prepared dataset is a folder `<data_dir>/<name>/<version>` that says everything about itself: `metadata.json` holds
the facts of `schema.DatasetInfo`, where tags and coarse masks came from, and how good the coarse masks are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fcntl
import json
import os
import pathlib
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.core.splits import SplitInfo
from tqdm import tqdm

from scarce_jax.data.builders.files import Example, encode_mask
from scarce_jax.data.coarse import CoarseMeter, CoarseQuality, CoarseSettings, example_rng, simulate_coarse
from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.errors import InputError

METADATA = "metadata.json"


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: tfds would look for the dataset in its own store, and leave a temporary folder behind."""


class SegmentationBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of images with fine masks, coarse masks and image tags.

    A subclass sets `VERSION`, `HOLDS` where it needs a source folder, and implements `describe` and `split_examples`.
    It is not entered in tfds' registry, whose names (`voc`, `coco`) mean other datasets.
    """

    HOLDS: ClassVar[str] = ""
    """What the source folder must hold, for messages; empty where the dataset needs none."""
    TAGS_FROM: ClassVar[str] = "the fine masks"
    COARSE_FROM: ClassVar[str] = "simulated from the fine masks (eroded, simplified, jittered polygons)"
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
        # Before tfds' own initialisation, which asks for the features and with them for the classes.
        self.source = source
        self.facts = self.describe()
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def describe(self) -> DatasetInfo:
        """The dataset's facts; `splits` is filled in from what `split_examples` gives."""
        raise NotImplementedError

    def split_examples(self) -> Mapping[str, Iterable[Example]]:
        """Split name -> its examples; only the splits that the source holds. May raise InputError, also later."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        mask = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "fine": mask,
            "coarse": mask,
            "tags": tfds.features.Tensor(shape=(len(self.facts.classes),), dtype=np.uint8),
            "id": tfds.features.Text(),
        }
        return _Info(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterable[Example]]:
        return self.split_examples()

    def _generate_examples(self) -> Iterator[Any]:
        raise NotImplementedError("examples come from split_examples")

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[SplitInfo]:
        """Writes the records as they come, in the source's order.

        tfds' own writer shuffles first, and past 1 GiB a split that goes through TensorFlow.
        """
        splits = self._split_generators(dl_manager)
        written = {name: self._write_split(name, examples) for name, examples in splits.items()}
        infos = [info for info, _ in written.values()]
        self.info.metadata.update(
            name=self.facts.name,
            version=str(self.version),
            classes=self.facts.classes,
            palette=self.facts.palette,
            background=self.facts.background,
            native_ids=self.facts.native_ids,
            splits={info.name: info.num_examples for info in infos},
            tags_from=self.TAGS_FROM,
            coarse_from=self.COARSE_FROM,
            coarse={name: dataclasses.asdict(quality) for name, (_, quality) in written.items()},
            files={path.name: path.stat().st_size for path in sorted(pathlib.Path(self.data_dir).iterdir())},
        )
        return infos

    def _write_split(self, split: str, examples: Iterable[Example]) -> tuple[SplitInfo, CoarseQuality]:
        folder = pathlib.Path(self.data_dir)
        serializer = example_serializer.ExampleSerializer(self.info.features.get_serialized_info())
        meter = CoarseMeter(len(self.facts.classes))
        ids: set[str] = set()
        lengths: list[int] = []
        sizes: list[int] = []
        with contextlib.ExitStack() as stack:
            # disable=None: a progress bar on a terminal alone.
            for example in tqdm(examples, f"{self.facts.name} {split}", unit=" images", leave=False, disable=None):
                if example.id in ids:
                    raise InputError(f"{self.source or self.name}: id {example.id!r} is twice in split {split!r}")
                ids.add(example.id)
                fields = self.info.features.encode_example(self._fields(example, meter))
                record = serializer.serialize_example(fields)
                if not sizes or sizes[-1] + len(record) > self.SHARD_BYTES:
                    stack.close()
                    # As tfds writes them: one record a group, for random access.
                    writer = ArrayRecordWriter(str(folder / f"{split}-{len(sizes)}"), "group_size:1")
                    stack.callback(writer.close)
                    lengths.append(0)
                    sizes.append(0)
                writer.write(record)
                lengths[-1] += 1
                sizes[-1] += len(record)
        if not ids:
            raise InputError(f"{self.source or self.name}: split {split!r} has no images")
        template = self._get_filename_template(split)
        for i in range(len(sizes)):
            path = template.sharded_filepath(shard_index=i, num_shards=len(sizes))
            (folder / f"{split}-{i}").rename(os.fspath(path))
        info = SplitInfo(name=split, shard_lengths=lengths, num_bytes=sum(sizes), filename_template=template)
        return info, meter.quality()

    def _fields(self, example: Example, meter: CoarseMeter) -> dict[str, Any]:
        fine, coarse, tags = example.fine, example.coarse, example.tags
        if coarse is None:
            rng = example_rng(self.facts.name, example.id)
            coarse = simulate_coarse(fine, rng=rng, **dataclasses.asdict(self.COARSE))
        if tags is None:
            classes = len(self.facts.classes)
            tags = (np.bincount(fine[fine != IGNORE], minlength=classes) > 0).astype(np.uint8)
            if self.facts.background is not None:
                tags[self.facts.background] = 0
        meter.add(fine, coarse)
        masks = {"fine": encode_mask(fine), "coarse": encode_mask(coarse)}
        return {"image": example.image, **masks, "tags": tags, "id": example.id}

    # tfds prints what it downloads and where to; `prepare`'s summary says it in the end.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared dataset, for printing (`str`) and for reading.

    Attributes:
      info: its facts, with the number of examples of each split that it holds.
      version: version of the builder that made it.
      directory: what `tfds.builder_from_directory` reads.
      bytes: its size on disk.
      tags_from: where the image tags came from.
      coarse_from: where the coarse masks came from.
      coarse: split -> how good they are.
    """

    info: DatasetInfo
    version: str
    directory: pathlib.Path
    bytes: int
    tags_from: str
    coarse_from: str
    coarse: Mapping[str, CoarseQuality]

    def __str__(self) -> str:
        info, classes = self.info, self.info.classes
        background = "none" if info.background is None else classes[info.background]
        lines = [
            f"{info.name} {self.version} in {self.directory}",
            f"  images      {', '.join(f'{split} {count}' for split, count in info.splits.items())}",
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
        return "\n".join(lines)


def default_data_dir() -> pathlib.Path:
    """`$TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    return pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def builder_class(name: str) -> tuple[type[SegmentationBuilder], str | None]:
    """The builder of a dataset and the config after the slash of its name ("voc/animals"), or None.

    Raises:
      InputError: there is no such dataset; the message has the nearest name and all of them.
    """
    from scarce_jax.data.builders import BUILDERS  # not at the top: the builders import this module

    if name not in BUILDERS:
        near = difflib.get_close_matches(name, BUILDERS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"no dataset is called {name!r}; {hint}there are: {', '.join(sorted(BUILDERS))}")
    return BUILDERS[name], name.partition("/")[2] or None


def dataset_dir(name: str, data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """The folder that a prepared dataset has, whether or not it is there. Raises InputError for an unknown name."""
    builder, _ = builder_class(name)
    return _root(data_dir) / name / str(builder.VERSION)


def is_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> bool:
    """True if the dataset is there with all its files. Raises InputError for an unknown name."""
    return _metadata(dataset_dir(name, data_dir)) is not None


def load_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> Prepared:
    """What is known of a prepared dataset, from its folder alone.

    Raises:
      InputError: the name is unknown, or the dataset is not prepared: the message has the command that prepares it.
    """
    directory = dataset_dir(name, data_dir)
    metadata = _metadata(directory)
    if metadata is None:
        raise InputError(f"dataset {name} is not prepared in {_root(data_dir)}; run: {prepare_command(name, data_dir)}")
    native_ids = metadata["native_ids"]
    return Prepared(
        info=DatasetInfo(
            name=metadata["name"],
            classes=tuple(metadata["classes"]),
            palette=tuple(tuple(colour) for colour in metadata["palette"]),
            background=metadata["background"],
            splits=metadata["splits"],
            native_ids=None if native_ids is None else tuple(native_ids),
        ),
        version=metadata["version"],
        directory=directory,
        bytes=sum(path.stat().st_size for path in directory.iterdir()),
        tags_from=metadata["tags_from"],
        coarse_from=metadata["coarse_from"],
        coarse={split: CoarseQuality(**quality) for split, quality in metadata["coarse"].items()},
    )


def load_info(name: str, data_dir: str | os.PathLike[str] | None = None) -> DatasetInfo:
    """The facts of a prepared dataset; raises as `load_prepared`, which also has its version."""
    return load_prepared(name, data_dir).info


def prepare_command(name: str, data_dir: str | os.PathLike[str] | None = None) -> str:
    """The command line that prepares a dataset where `data_dir` says."""
    builder, _ = builder_class(name)
    words = ["scarce-jax prepare", name, *(["--source DIR"] if builder.HOLDS else [])]
    if _root(data_dir) != default_data_dir():
        words.append(f"--data-dir {shlex.quote(str(_root(data_dir)))}")
    return " ".join(words)


def prepare(
    name: str, data_dir: str | os.PathLike[str] | None = None, source: str | os.PathLike[str] | None = None
) -> Prepared:
    """Builds a dataset, or finds it built; whatever happens, nothing half-built stays behind.

    Processes that prepare the same dataset wait for one another.

    Args:
      name: of the dataset.
      data_dir: where it is built; None is `default_data_dir()`.
      source: the folder of its published files; needed unless the dataset is built already or generated.

    Raises:
      InputError: the name is unknown, the source is missing or not needed, or one of its files is wrong.
    """
    builder, config = builder_class(name)
    target, root = dataset_dir(name, data_dir), _root(data_dir)
    if is_prepared(name, data_dir):
        return load_prepared(name, data_dir)
    try:
        with _new_folders_undone(root), _only_one(root / f".{name.replace('/', '-')}.lock"):
            _discard_remains(target)
            if not is_prepared(name, data_dir):
                folder = _checked_source(name, builder, source)
                with _new_folders_undone(target.parent), tempfile.TemporaryDirectory() as downloads:
                    made = builder(data_dir=root, source=folder, config=config)
                    made.download_and_prepare(download_dir=downloads)
    except OSError as error:
        raise InputError(f"{target}: dataset {name} cannot be written there ({error})") from error
    return load_prepared(name, data_dir)


def _root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    return default_data_dir() if data_dir is None else pathlib.Path(data_dir).expanduser()


def _metadata(directory: pathlib.Path) -> dict[str, Any] | None:
    """The content of a prepared folder's metadata.json; None unless the folder and all its records are there."""
    try:
        metadata = json.loads((directory / METADATA).read_text())
        files = metadata["files"]
        sizes = {file: (directory / file).stat().st_size for file in files}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # tfds writes dataset_info.json last.
    return metadata if sizes == files and (directory / "dataset_info.json").exists() else None


def _checked_source(
    name: str, builder: type[SegmentationBuilder], source: str | os.PathLike[str] | None
) -> pathlib.Path | None:
    if not builder.HOLDS:
        if source is not None:
            raise InputError(f"--source {source}: dataset {name} is generated and takes no source; leave it out")
        return None
    if source is None:
        raise InputError(f"dataset {name} needs --source DIR, a folder that holds {builder.HOLDS}")
    folder = pathlib.Path(source).expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "missing"
        raise InputError(f"--source {folder}: {found}, expected a folder that holds {builder.HOLDS}")
    return folder


def _discard_remains(target: pathlib.Path) -> None:
    """Removes what a killed build or an interrupted copy left; never a dataset that somebody else's builder made."""
    for remains in target.parent.glob(f"incomplete.*_{target.name}"):
        shutil.rmtree(remains)
    if not target.exists() or _metadata(target) is not None:
        return
    if (target / "dataset_info.json").exists():
        try:
            ours = "coarse_from" in json.loads((target / METADATA).read_text())
        except FileNotFoundError:
            ours = False
        except ValueError:
            ours = True
        if not ours:
            raise InputError(f"{target}: holds another tfds dataset of this name; choose another --data-dir")
    shutil.rmtree(target)


@contextlib.contextmanager
def _new_folders_undone(folder: pathlib.Path) -> Iterator[None]:
    """Makes `folder`; if the block fails, removes it and its parents as far as they are new and empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()
        raise


@contextlib.contextmanager
def _only_one(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock file, which the system releases should this process die."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
        fcntl.flock(handle, fcntl.LOCK_EX)
        # Its last holder deletes the file; whoever waited for it then holds a lock that nobody else will meet.
        if path.exists() and path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
            break
        handle.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()
