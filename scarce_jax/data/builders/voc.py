"""PASCAL VOC 2012 with or without the masks of SBD, 21 classes; and `voc/animals`, 7 of these classes."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import xml.etree.ElementTree
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.files import Example, check_size, naming, read_indices, to_indices
from scarce_jax.data.coarse import CoarseSettings
from scarce_jax.data.datasets import VOC, VOC_ANIMALS
from scarce_jax.data.files import read_lines
from scarce_jax.data.image_files import is_litter
from scarce_jax.data.images import read_encoded
from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.errors import InputError

ROOTS = (".", "VOC2012", "VOCdevkit/VOC2012")
"""Subfolders of a source that may hold VOC's folders."""

SBD = ("dataset/cls", "benchmark_RELEASE/dataset/cls")
"""Paths of SBD's masks in a source or beside VOC's folders."""

LABELS = "image_labels.json"
LABELS_JSON = '{"classes": [the 21 names of VOC], "labels": {id: [indices of classes]}}'
LAYOUT = (
    "VOC2012 (or VOCdevkit/VOC2012) with JPEGImages, SegmentationClass, ImageSets/Segmentation and Annotations, and "
    "for train_aug also VOC2012/SegmentationClassAug or SBD's benchmark_RELEASE/dataset/cls"
)
ANIMALS = ("cat", "cow", "dog", "horse", "sheep")


class Voc(SegmentationBuilder):
    """The splits `train`, `val` and `test`. Ids are those of the files, such as "2007_000032".

    `train` is ImageSets/Segmentation/train_aug.txt (10,582 images) if that exists. Otherwise it is the same images if
    the source has SegmentationClassAug or SBD: those with a mask there and those of train.txt, without those of
    val.txt. Otherwise it is train.txt (1,464).

    `test` is test.txt (1,456), if the source has it. Its labels are not published: its examples have a mask only where
    SegmentationClass has one, and no other tags. `predict --split test` makes the masks for the evaluation server.

    Masks are read from SegmentationClass; if it is not there, from SegmentationClassAug (PNG files whose palette
    indices are the ids) or SBD (dataset/cls/*.mat). Without these two, other images of train_aug.txt have only tags.

    Tags are read from `image_labels.json` in the source; otherwise from the objects of Annotations/*.xml, including
    difficult ones; otherwise they are taken from the masks.
    """

    VERSION = tfds.core.Version("1.0.0")
    VARIES = True
    HOLDS = LAYOUT
    FACTS = VOC
    SHOWING: ClassVar[tuple[str, ...]] = ()
    """Only images that show one of these classes are taken, by their mask or else their tags; if empty, all."""

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        files = find_voc(self.source, LAYOUT)
        self.tags_from = files.tags_from
        splits = files.splits()
        if self.SHOWING:  # Nothing tells which images of the test split show them.
            splits.pop("test", None)
        return {split: files.examples(split, ids, self.FACTS, self.SHOWING) for split, ids in splits.items()}


class VocAnimals(Voc):
    """Background, cat, cow, dog, horse, person and sheep. Pixels of other classes are 255, and their tags are dropped.

    Images without an animal (persons do not count) are left out, and so is the test split.
    """

    name = "voc"
    # Four times the default erosion, because animals are large: the mIoU is 0.51 (val 0.45) instead of 0.83.
    COARSE = CoarseSettings(erosion=50 / 600, simplification=12 / 600, jitter=14 / 600)
    FACTS = VOC_ANIMALS
    SHOWING = ANIMALS


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocFiles:
    """The files of VOC in a source.

    Attributes:
      root: the folder that holds JPEGImages.
      grown: folder of the masks that train_aug adds: `SegmentationClassAug` (PNG) or SBD's `cls` (MAT), or None.
      labels_file: `image_labels.json`, or None.
      labels: the content of `labels_file`: id -> names of the classes that the image shows.
    """

    root: pathlib.Path
    grown: pathlib.Path | None
    labels_file: pathlib.Path | None
    labels: Mapping[str, Sequence[str]]

    @property
    def tags_from(self) -> str:
        if self.labels_file is not None:
            return LABELS
        return "the objects of Annotations/*.xml, else the fine masks" if self._xml.is_dir() else "the fine masks"

    @property
    def _xml(self) -> pathlib.Path:
        return self.root / "Annotations"

    def splits(self) -> dict[str, list[str]]:
        """Returns the ids of each split, in the order of the lists, and checks that their files exist.

        Raises:
          InputError: there is no list, val.txt is missing where `train` is what is not in it, or a file is missing.
        """
        train, val, longer, test = (self._listed(name) for name in ("train", "val", "train_aug", "test"))
        if longer is None and self.grown is not None:
            if val is None:
                raise InputError(
                    f"{self._list('val')}: missing; without it and train_aug.txt it is unknown which masks of "
                    f"{self.grown} are for training; add one of them"
                )
            ending = ".mat" if self._is_sbd else ".png"
            masked = [path.stem for path in self.grown.glob(f"*{ending}") if not is_litter(path.name)]
            longer = sorted({*(train or ()), *masked} - {*val})
        splits = {"train": longer if longer is not None else train, "val": val}
        splits = {split: ids for split, ids in splits.items() if ids is not None}
        if not splits:
            raise InputError(
                f"{self._list('train').parent}: has no train.txt, train_aug.txt or val.txt, expected at least one"
            )
        of_voc = {*(train or ()), *(val or ())}
        for split, ids in splits.items():
            for name in ids:
                self._check(name, split, name in of_voc)
        for name in test or ():
            self._check_image(name, "test")
        return splits if test is None else {**splits, "test": test}

    def examples(
        self, split: str, ids: Sequence[str], facts: DatasetInfo, showing: Sequence[str] = ()
    ) -> Iterator[Example]:
        """Yields the examples of a split.

        Args:
          split: its name.
          ids: its ids.
          facts: facts of the dataset to build. Classes of VOC that it does not have become 255.
          showing: if not empty, images that show none of these classes are left out.
        """
        indices = {
            k: facts.classes.index(name) if name in facts.classes else IGNORE for k, name in enumerate(VOC.classes)
        }
        shown = [facts.classes.index(name) for name in showing]
        for name in ids:
            path = self._mask(name)
            fine = None if path is None else _read_fine(path, name, indices)
            # Annotations of test images are of other tasks, and do not list all objects.
            tags = None if split == "test" else self._tags(name, facts)
            if shown and not (tags[shown].any() if fine is None else np.isin(fine, shown).any()):
                continue
            image = self._image(name)
            with naming("image", name):
                data, size = read_encoded(image)
            if fine is not None:
                check_size(fine, path, size, image, name)
            yield Example(id=name, image=data, fine=fine, tags=tags)

    def _list(self, name: str) -> pathlib.Path:
        return self.root / "ImageSets" / "Segmentation" / f"{name}.txt"

    def _listed(self, name: str) -> list[str] | None:
        """Reads the ids of a list, whose lines begin with an id or an image's path; None if the list is missing."""
        path = self._list(name)
        if not path.is_file():
            return None
        lines = read_lines(path, "an id on each line")
        return [pathlib.PurePosixPath(line.split()[0]).stem for line in lines if line.strip()]

    @property
    def _is_sbd(self) -> bool:
        return self.grown is not None and self.grown.name == "cls"

    def _image(self, name: str) -> pathlib.Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def _mask(self, name: str) -> pathlib.Path | None:
        places = [self.root / "SegmentationClass" / f"{name}.png"]
        if self.grown is not None:
            places.append(self.grown / f"{name}{'.mat' if self._is_sbd else '.png'}")
        return next((path for path in places if path.is_file()), None)

    def _check_image(self, name: str, split: str) -> None:
        if not self._image(name).is_file():
            without = " (the archive VOC2012test), or remove test.txt" if split == "test" else ""
            raise InputError(
                f"{self._image(name)}: the image of example {name} is missing ({split}); restore it{without}"
            )

    def _check(self, name: str, split: str, of_voc: bool) -> None:
        self._check_image(name, split)
        if self.labels_file is not None and name not in self.labels:
            raise InputError(
                f"{self.labels_file}: has no labels of example {name} ({split}); add them, or remove the file"
            )
        if self._mask(name) is not None:
            return
        if of_voc or self.grown is not None:
            places = " and ".join(str(p) for p in (self.root / "SegmentationClass", self.grown) if p is not None)
            raise InputError(
                f"{places}: the mask of example {name} is missing ({split}); extract the archives completely, or "
                "remove it from the list"
            )
        if self._tagged(name) is None:
            raise InputError(
                f"{self._list('train_aug')}: {name} has neither a mask nor tags; expected its mask in "
                f"SegmentationClassAug or SBD's dataset/cls, or its labels in {self._xml} or {LABELS}"
            )

    def _tags(self, name: str, facts: DatasetInfo) -> np.ndarray | None:
        shown = self._tagged(name)
        if shown is None:
            return None
        tags = np.array([k in shown for k in facts.classes], np.uint8)
        tags[facts.background] = 0
        return tags

    def _tagged(self, name: str) -> Sequence[str] | None:
        """Names of the classes that an image shows; None if that is unknown."""
        if self.labels_file is not None:
            return self.labels[name]
        path = self._xml / f"{name}.xml"
        return _objects(path, name) if path.is_file() else None


def find_voc(source: pathlib.Path, expected: str) -> VocFiles:
    """Finds the files of VOC in a source.

    Args:
      source: the source folder.
      expected: the expected content of the source, for messages.

    Raises:
      InputError: there is no JPEGImages, or image_labels.json is damaged.
    """
    root = next((source / place for place in ROOTS if (source / place / "JPEGImages").is_dir()), None)
    if root is None:
        raise InputError(
            f"{source}: has no JPEGImages, VOC2012/JPEGImages or VOCdevkit/VOC2012/JPEGImages; expected {expected}"
        )
    folders = dict.fromkeys((root, source))
    grown = (root / "SegmentationClassAug", *(folder / place for folder in folders for place in SBD))
    labels = next((folder / LABELS for folder in folders if (folder / LABELS).is_file()), None)
    return VocFiles(
        root=root,
        grown=next((path for path in grown if path.is_dir()), None),
        labels_file=labels,
        labels={} if labels is None else _read_labels(labels),
    )


def _read_fine(path: pathlib.Path, name: str, indices: Mapping[int, int]) -> np.ndarray:
    if path.suffix != ".mat":
        return read_indices(path, name, indices)
    import scipy.io

    try:
        segmentation = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)["GTcls"].Segmentation
        ids = np.asarray(segmentation).astype(np.int64)
        if ids.ndim != 2:
            raise ValueError(f"{ids.ndim} axes")
    except Exception as error:  # SciPy raises almost any exception for damaged files.
        raise InputError(
            f"{path} (example {name}): the mask cannot be read ({type(error).__name__}: {error}); expected SBD's "
            "GTcls.Segmentation [H, W]"
        ) from error
    return to_indices(ids, path, name, indices)


def _objects(path: pathlib.Path, name: str) -> tuple[str, ...]:
    try:
        # Only direct children: parts of a person, one level below, have names too.
        labels = [(node.findtext("name") or "").strip() for node in xml.etree.ElementTree.parse(path).findall("object")]
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        raise InputError(f"{path} (example {name}): cannot be read as XML ({error}); extract it again") from error
    for label in labels:
        if label not in VOC.classes:
            raise InputError(f"{path} (example {name}): object {label!r}, expected one of {', '.join(VOC.classes[1:])}")
    return tuple(dict.fromkeys(labels))


def _read_labels(path: pathlib.Path) -> dict[str, tuple[str, ...]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        classes, labels = content["classes"], content["labels"]
        if tuple(classes) != VOC.classes:
            raise ValueError(f"classes are {classes}")
        if any(not 0 <= k < len(classes) for ks in labels.values() for k in ks):
            raise ValueError(f"an index is not from 0 to {len(classes) - 1}")
        return {name: tuple(classes[k] for k in ks) for name, ks in labels.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}; expected {LABELS_JSON}") from error
