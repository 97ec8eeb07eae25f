"""`folder`: images and masks of the user's own; an example may have a fine mask, a coarse one, tags, or nothing."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SIMULATED, SegmentationBuilder
from scarce_jax.data.builders.files import Example, read_files
from scarce_jax.data.builders.folder_files import Classes, read_classes, read_tags
from scarce_jax.data.files import list_images
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError, nearest

__all__ = ["Classes", "Folder", "find_splits", "read_classes"]

CLASSES, TAGS, IMAGES = "classes.json", "tags.csv", "images"
MASKS = {"fine": "masks", "coarse": "coarse"}
"""Field of an example -> folder of its files."""

_FIRST = ("train", "val", "test")
_SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Folder(SegmentationBuilder):
    """Reads every split that has images; an example is called "SPLIT/STEM", since splits may have equal stems.

    Where there is a `coarse` folder in any split, the coarse masks are those in it; else they are simulated from the
    fine ones.
    """

    VERSION = tfds.core.Version("1.0.0")
    NAMED = True
    HOLDS = (
        f"{CLASSES} and SPLIT/{IMAGES}, with SPLIT/masks and SPLIT/coarse (class ids, named as the images) and "
        f"{TAGS} (lines id,class;class) as far as there are any; SPLIT is train, val, ..."
    )

    def describe(self) -> DatasetInfo:
        if not (self.source / CLASSES).is_file():
            raise InputError(f"{self.source}: has no {CLASSES}; expected {self.HOLDS}")
        self.classes = read_classes(self.source / CLASSES)
        return DatasetInfo(
            name=f"folder/{self.variant}",
            classes=self.classes.classes,
            palette=self.classes.palette,
            background=self.classes.background,
            splits={},
        )

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        splits = find_splits(self.source)
        images = {split: list_images(self.source / split / IMAGES) for split in splits}
        tags = find_tags(self.source, self.classes, images)
        simulate = not any((self.source / split / MASKS["coarse"]).is_dir() for split in splits)
        self.coarse_from = SIMULATED if simulate else "of the source"
        if tags:
            self.tags_from = f"{TAGS}, else the fine masks"
        files = {}
        for split, paths in images.items():
            masks = {field: _masks(self.source / split, kind, paths) for field, kind in MASKS.items()}
            files[split] = [
                _Files(
                    id=f"{split}/{stem}",
                    image=path,
                    masks={field: by_stem.get(stem) for field, by_stem in masks.items()},
                    tags=tags.get(f"{split}/{stem}"),
                )
                for stem, path in paths.items()
            ]
        return {split: _examples(entries, self.classes, simulate) for split, entries in files.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Files:
    id: str
    image: pathlib.Path
    masks: Mapping[str, pathlib.Path | None]
    tags: np.ndarray | None


def _examples(files: list[_Files], classes: Classes, simulate: bool) -> Iterator[Example]:
    for one in files:
        parts = read_files(one.image, one.masks, one.id, classes.indices)
        yield Example(id=one.id, **parts, tags=one.tags, simulate=simulate)


def find_splits(source: pathlib.Path) -> list[str]:
    """Folders of a source that hold `images`: train, val and test first.

    Raises:
      InputError: there is none, a name cannot be a split's, or a folder has masks and no images.
    """
    kinds = (IMAGES, *MASKS.values())
    names = sorted({path.parent.name for kind in kinds for path in source.glob(f"*/{kind}") if path.is_dir()})
    for name in names:
        if not (source / name / IMAGES).is_dir():
            raise InputError(f"{source / name}: has masks and no folder {IMAGES}; expected {Folder.HOLDS}")
        if not _SPLIT.fullmatch(name) or name == "all":
            raise InputError(
                f"{source / name}: {name!r} cannot name a split; expected letters, digits and _, such as train or val"
            )
    if not names:
        raise InputError(f"{source}: no folder in it holds a folder {IMAGES}; expected {Folder.HOLDS}")
    return sorted(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))


def find_tags(
    source: pathlib.Path, classes: Classes, images: Mapping[str, Mapping[str, pathlib.Path]]
) -> dict[str, np.ndarray]:
    """Example id -> its tags, from SPLIT/tags.csv and from the tags.csv of the whole source.

    Args:
      images: of each split, by stem.

    Raises:
      InputError: as `read_tags`; or an image is in both files.
    """
    tags: dict[str, np.ndarray] = {}
    meant: dict[str, list[str]] = {}
    for split, stems in images.items():
        here = {stem: [f"{split}/{stem}"] for stem in stems}
        for stem, ids in here.items():
            meant.setdefault(stem, []).extend(ids)
            meant[ids[0]] = ids
        path = source / split / TAGS
        if path.is_file():
            tags |= read_tags(path, classes, here)
    path = source / TAGS
    if path.is_file():
        whole = read_tags(path, classes, meant)
        both = sorted(set(whole) & set(tags))
        if both:
            where = source / both[0].partition("/")[0] / TAGS
            raise InputError(f"{path}: {both[0]!r} is in {where} too; expected one line an image")
        tags |= whole
    return tags


def _masks(split: pathlib.Path, kind: str, images: Mapping[str, pathlib.Path]) -> dict[str, pathlib.Path]:
    """Stem -> mask file of one kind; raises InputError for a mask without an image, which would go unused."""
    masks = list_images(split / kind)
    stray = [stem for stem in masks if stem not in images]
    if stray:
        raise InputError(
            f"{masks[stray[0]]}: no image in {split / IMAGES} has this stem ({len(stray)} of {len(masks)} masks)"
            f"{nearest(stray[0], images)}; a mask is named as its image, up to the suffix"
        )
    return masks
