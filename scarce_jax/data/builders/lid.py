"""`lid`: the LID Challenge 2020 on ILSVRC DET, 201 classes; image tags for training, masks for validation."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.files import Example, read_files
from scarce_jax.data.builders.lid_tables import COUNT, NAMES, TRAIN_JSON, read_image_sets, read_list, read_names
from scarce_jax.data.datasets import LID
from scarce_jax.data.files import read_lines
from scarce_jax.data.image_files import list_images
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError

PLACES = ("", "ILSVRC/", "ILSVRC/Data/DET/train/", "Data/DET/train/", "LID_track1/", "LID_track1_imageset/LID_track1/")
"""Subfolders of a source that may hold the files of the challenge."""

IDX_TO_NAME = "idx_to_name.json"
NAME_FILES = (IDX_TO_NAME, f"val/{IDX_TO_NAME}", "devkit/data/map_det.txt", "map_det.txt")

TRAIN_LIST, IMAGE_SETS, TRAIN_IMAGES = "train.json", "ImageSets/DET", "Data/DET/train"
MASKS = ("val/masks", "val_gt", "track1_val_annotations_raw", "LID_track1_annotations/track1_val_annotations_raw")

LAYOUT = (
    f"{IDX_TO_NAME} or ILSVRC's devkit/data/map_det.txt; for train ILSVRC/{IMAGE_SETS} and ILSVRC/{TRAIN_IMAGES}, or "
    f"{TRAIN_LIST} ({TRAIN_JSON}, paths from its folder); for val and test LID_track1/val and LID_track1/test (or val "
    f"and test), and the masks of val in val_gt or track1_val_annotations_raw"
)


class Lid(SegmentationBuilder):
    """The splits `train` (only tags), `val` (masks) and `test` (no labels) of track 1, those that the source holds.

    Source: Wei et al., "LID 2020: The Learning from Imperfect Data Challenge Results". Ids are paths without suffix
    from the folder of the split, such as "ILSVRC2013_train/n02672831/n02672831_11", because stems may repeat.

    The tags of `train` are read from `train.json`, in the format of the lists of Dobko et al. ("NoPeopleAllowed", code
    at github.com/ucuapps/LIDChallenge2020-NoPeopleAllowed). Without it they are read from ILSVRC's train_1.txt to
    train_200.txt: an image shows class k if its label in train_k.txt is 1 or 0 (not every object of it has a box), and
    does not if it is -1. An image of which no list names a class has no known tags: most images were looked through for
    a few classes only.

    Masks are PNG files of the ids 0 (background) to 200; 255 is void. Tags of `val` are taken from them. There are no
    coarse masks. Names of the classes are read from `idx_to_name.json`, else from `map_det.txt` of ILSVRC's devkit.

    Not one of these files was at hand: layouts are those that public programs read.
    """

    VERSION = tfds.core.Version("1.0.0")
    VARIES = True
    HOLDS = LAYOUT
    coarse_from = "none"

    def describe(self) -> DatasetInfo:
        path = find(self.source, *NAME_FILES)
        if path is None:
            raise InputError(
                f"{self.source}: has no {IDX_TO_NAME} and no devkit/data/map_det.txt, which name the classes; expected "
                f"{NAMES}; copy map_det.txt from ILSVRC's devkit, or write {IDX_TO_NAME}"
            )
        return dataclasses.replace(LID, classes=("background", *read_names(path)), splits={})

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        splits = find_train(self.source) | find_evaluated(self.source)
        if not splits:
            raise InputError(f"{self.source}: has no images of train, val or test; expected {self.HOLDS}")
        if "train" in splits:
            self.tags_from = f"{splits['train'].where.relative_to(self.source)} (train), the fine masks (val)"
        for images in splits.values():
            images.check()
        return {split: images.examples() for split, images in splits.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a split.

    Attributes:
      where: the file or folder that lists them, for messages.
      root: the folder that paths begin at.
      labels: path of an image without suffix -> ids of the classes that it shows; () if they are unknown.
      masks: the folder of the masks, or None.
    """

    where: pathlib.Path
    root: pathlib.Path
    labels: Mapping[str, tuple[int, ...]]
    masks: pathlib.Path | None = None

    # One reading of each folder tells which files exist and how their names end; ILSVRC has half a million files.
    @functools.cached_property
    def _folders(self):
        return functools.cache(lambda folder: list_images(folder, nested=False))

    def check(self) -> None:
        """Raises InputError if an image, or a mask of one, is missing."""
        finders = {"image": (self.root, self._image)}
        if self.masks is not None:
            finders["mask"] = (self.masks, self._mask)
        for kind, (folder, find_file) in finders.items():
            missing = [name for name in self.labels if find_file(name) is None]
            if missing:
                raise InputError(
                    f"{folder / missing[0]}.*: the {kind} of an example of {self.where} is missing ({len(missing)} of "
                    f"{len(self.labels)} are); extract the archives completely, or remove it from the list"
                )

    def examples(self) -> Iterator[Example]:
        """Yields the examples, in the order of the list."""
        indices = {k: k for k in range(COUNT + 1)}
        for name, ids in self.labels.items():
            parts = read_files(self._image(name), {"fine": self._mask(name)}, name, indices)
            tags = np.zeros(COUNT + 1, np.uint8)
            tags[list(ids)] = 1
            yield Example(id=name, **parts, tags=tags if ids else None, simulate=False)

    def _image(self, name: str) -> pathlib.Path | None:
        folder, _, stem = name.rpartition("/")
        return self._file(self.root / folder, stem)

    def _mask(self, name: str) -> pathlib.Path | None:
        return None if self.masks is None else self._file(self.masks, name.rpartition("/")[2])

    def _file(self, folder: pathlib.Path, stem: str) -> pathlib.Path | None:
        return self._folders(folder).get(stem)


def find(source: pathlib.Path, *names: str) -> pathlib.Path | None:
    """Returns the first of `names` that one of `PLACES` holds, or None."""
    paths = (source / place / name for name in names for place in PLACES)
    return next((path for path in paths if path.exists()), None)


def find_train(source: pathlib.Path) -> dict[str, Images]:
    """Finds the images of `train`; {} if the source has no list of them.

    Raises:
      InputError: a list is damaged, or names a class that does not exist.
    """
    if (path := find(source, TRAIN_LIST)) is not None:
        return {"train": Images(where=path, root=path.parent, labels=read_list(path))}
    if (folder := find(source, IMAGE_SETS)) is not None:
        root = folder.parents[1] / TRAIN_IMAGES
        return {"train": Images(where=folder, root=root, labels=read_image_sets(folder))}
    return {}


def find_evaluated(source: pathlib.Path) -> dict[str, Images]:
    """Finds the images of `val` and `test`: those of val.txt and test.txt, else all of their folders.

    Raises:
      InputError: there are images of `val` and no masks.
    """
    splits = {}
    for split in ("val", "test"):
        root = find(source, split)
        if root is None:
            continue
        masks = find(source, *MASKS) if split == "val" else None
        if split == "val" and masks is None:
            raise InputError(f"{source}: has no masks of {root}; expected them in {', '.join(MASKS)}")
        lists = (folder / f"{split}.txt" for folder in (root, root.parent))
        path = next((path for path in lists if path.is_file()), None)
        names: Iterable[str] = list_images(root, nested=False)
        if path is not None:
            names = (line.split()[0] for line in read_lines(path, "a name on each line") if line.strip())
        splits[split] = Images(where=path or root, root=root, labels=dict.fromkeys(names, ()), masks=masks)
    return splits
