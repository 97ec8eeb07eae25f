"""`folder`: the user's own images; each may have a fine mask, a coarse mask, tags, or no labels."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SIMULATED, SegmentationBuilder
from scarce_jax.data.builders.files import Example, Files, masks_of, read_examples
from scarce_jax.data.builders.folder_tables import Classes, read_classes, read_tags
from scarce_jax.data.files import list_images
from scarce_jax.data.palettes import Palettes
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError

CLASSES, TAGS, IMAGES = "classes.json", "tags.csv", "images"
MASKS = {"fine": "masks", "coarse": "coarse"}
"""Field of an example -> folder of its files."""

_FIRST = ("train", "val", "test")
_SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Folder(SegmentationBuilder):
    """Reads every split that has images. Ids are "SPLIT/STEM", since splits may have equal stems.

    If any split has a `coarse` folder, coarse masks are read from these folders; otherwise they are simulated from the
    fine masks.
    """

    VERSION = tfds.core.Version("1.0.0")
    NAMED = True
    HOLDS = (
        f"{CLASSES} and SPLIT/{IMAGES}, with SPLIT/masks and SPLIT/coarse (class ids, named as the images) and "
        f"{TAGS} (lines id,class;class) if there are any; SPLIT is train, val, ..."
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
            masks = {
                field: masks_of(self.source / split / kind, paths, self.source / split / IMAGES)
                for field, kind in MASKS.items()
            }
            files[split] = [
                Files(
                    id=f"{split}/{stem}",
                    image=path,
                    masks={field: by_stem.get(stem) for field, by_stem in masks.items()},
                    tags=tags.get(f"{split}/{stem}"),
                )
                for stem, path in paths.items()
            ]
        options = {"simulate": simulate, "palettes": {field: Palettes() for field in MASKS}}
        return {split: read_examples(listed, self.classes.indices, **options) for split, listed in files.items()}


def find_splits(source: pathlib.Path) -> list[str]:
    """Lists the splits of a source, which are its folders that hold `images`: train, val and test first.

    Raises:
      InputError: there is no split, a folder's name cannot be that of a split, or a folder has masks and no images.
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
    """Reads the tags of all splits, from SPLIT/tags.csv and from the tags.csv of the whole source.

    Args:
      source: the source folder.
      classes: the content of its classes.json.
      images: split -> stem -> image file.

    Returns:
      Example id -> uint8 [K], multi-hot.

    Raises:
      InputError: as in `read_tags`; or an image is in both files.
    """
    tags: dict[str, np.ndarray] = {}
    matches: dict[str, list[str]] = {}
    for split, stems in images.items():
        in_split = {stem: [f"{split}/{stem}"] for stem in stems}
        for stem, ids in in_split.items():
            matches.setdefault(stem, []).extend(ids)
            matches[ids[0]] = ids
        path = source / split / TAGS
        if path.is_file():
            tags |= read_tags(path, classes, in_split)
    path = source / TAGS
    if path.is_file():
        whole = read_tags(path, classes, matches)
        repeated = sorted(set(whole) & set(tags))
        if repeated:
            where = source / repeated[0].partition("/")[0] / TAGS
            raise InputError(f"{path}: {repeated[0]!r} is in {where} too; expected one line per image")
        tags |= whole
    return tags
