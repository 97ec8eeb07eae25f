"""`imagenet`: a tree of images with a folder for each class, as ImageNet's; one tag per image, and masks if any."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.files import Example, check_size, masks_of, naming, read_indices
from scarce_jax.data.datasets import default_palette
from scarce_jax.data.files import read_json, read_lines
from scarce_jax.data.image_files import SUFFIXES, is_litter, list_images
from scarce_jax.data.images import read_encoded
from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.errors import InputError, nearest

SPLITS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
"""Split -> possible names of its folder."""

MOST = IGNORE - 1
"""Classes beside the background: ids are bytes, of which 0 is the background and 255 is void."""

MASKS = "-segmentation"
"""What the name of a folder of masks has after that of its images."""

VOID = 1000
"""ImageNet-S' id of pixels that do not count."""

NAMES_JSON, SYNSETS = "classes.json", "LOC_synset_mapping.txt"
NAMES = '{"FOLDER": "name of the class", ...}'


class ImageNet(SegmentationBuilder):
    """Reads train/CLASS, val/CLASS (or validation/CLASS) and test/CLASS. Ids are "SPLIT/CLASS/STEM".

    Class 0 is the background; the folders of `train` are the others, in the order of their names. An image's tag is the
    class of its folder. Images that lie in `test` itself have no tags.

    Names of classes are those of the folders, unless classes.json or ImageNet's LOC_synset_mapping.txt (lines "synset
    name, name, ...", of which the first name is taken) has others; of equal names each has the folder's added.

    Masks are those of ImageNet-S (Gao et al., "Large-scale Unsupervised Semantic Segmentation"): PNG files of class ids
    in `val-segmentation` (for `val`), in the same folders. Ids may be grey or palette values, or RGB as there, red +
    256 * green; 255 and 1000 are void. Not every image needs one. There are no coarse masks.
    """

    name = "imagenet"
    VERSION = tfds.core.Version("1.0.0")
    NAMED = True
    HOLDS = (
        "train/CLASS/x.jpg, val/CLASS/x.jpg and test/CLASS/x.jpg, with masks of class ids (0 background, 1 the first "
        f"CLASS by name, 255 void) in val{MASKS}/CLASS/x.png, and names of the classes in {NAMES_JSON} ({NAMES}) or "
        f"{SYNSETS} if there are any"
    )
    tags_from = "the folders of the classes"
    coarse_from = "none"

    def describe(self) -> DatasetInfo:
        train = self.source / "train"
        if not train.is_dir():
            raise InputError(f"{train}: missing; expected {self.HOLDS}")
        self.folders = class_folders(train)
        if not 1 <= len(self.folders) <= MOST:
            raise InputError(
                f"{train}: {len(self.folders)} folders of classes, expected 1 to {MOST}, because class ids are bytes, "
                "of which 0 is the background and 255 is void; choose a part of the classes"
            )
        return DatasetInfo(
            name=f"imagenet/{self.variant}",
            classes=("background", *class_names(self.source, self.folders)),
            palette=((0, 0, 0), *default_palette(len(self.folders))),
            background=0,
            splits={},
            void_ids=(VOID,),
        )

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        examples = {}
        for split, places in SPLITS.items():
            images = next((self.source / place for place in places if (self.source / place).is_dir()), None)
            if images is None:
                continue
            masks = images.with_name(images.name + MASKS)
            folders = class_folders(images, loose=split == "test")
            self._check(images, folders, self.source / "train", self.folders)
            if masks.is_dir():
                self._check(masks, class_folders(masks), images, folders)
            examples[split] = self._examples(split, images, masks, folders)
        return examples

    def _check(self, folder: pathlib.Path, names: Sequence[str], other: pathlib.Path, known: Sequence[str]) -> None:
        """Raises InputError if `folder` has the folder of a class that `other` does not have."""
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(
                f"{folder / unknown[0]}: {other} has no folder of this name{nearest(unknown[0], known)} "
                f"({len(unknown)} of {len(names)} folders); remove it, or add the class there"
            )

    def _examples(
        self, split: str, folder: pathlib.Path, masks: pathlib.Path, classes: Sequence[str]
    ) -> Iterator[Example]:
        # One folder at a time: ImageNet has more than a million files.
        for name in classes:
            images = list_images(folder / name)
            tags = np.zeros(len(self.facts.classes), np.uint8)
            tags[1 + self.folders.index(name)] = 1
            drawn = masks_of(masks / name, images, folder / name)
            for stem, path in images.items():
                yield self._example(f"{split}/{name}/{stem}", path, drawn.get(stem), tags)
        if not classes:
            for stem, path in list_images(folder).items():
                yield self._example(f"{split}/{stem}", path, None, None)

    def _example(
        self, example_id: str, image: pathlib.Path, mask: pathlib.Path | None, tags: np.ndarray | None
    ) -> Example:
        with naming("image", example_id):
            data, size = read_encoded(image)
        fine = None
        if mask is not None:
            fine = read_indices(mask, example_id, self.facts.indices, two_bytes=True)
            check_size(fine, mask, size, image, example_id)
        return Example(id=example_id, image=data, fine=fine, tags=tags, simulate=False)


def class_folders(folder: pathlib.Path, *, loose: bool = False) -> tuple[str, ...]:
    """Returns the names of the folders of the classes in a split, sorted; hidden ones are left out.

    Args:
      folder: the folder of the split.
      loose: images may lie in the folder itself, if it has no folders.

    Raises:
      InputError: an image lies beside the folders.
    """
    with os.scandir(folder) as entries:
        named = sorted((entry.name, entry.is_dir()) for entry in entries)
    shown = [(name, is_folder) for name, is_folder in named if not is_litter(name, is_folder)]
    folders = tuple(name for name, is_folder in shown if is_folder)
    for name, is_folder in shown:
        if not is_folder and name.lower().endswith(SUFFIXES) and (folders or not loose):
            raise InputError(f"{folder / name}: lies in no folder of a class; expected {folder}/CLASS/{name}")
    return folders


def class_names(source: pathlib.Path, folders: Sequence[str]) -> list[str]:
    """Returns the name of each folder's class: the folder's own, unless the source has a file of names.

    Raises:
      InputError: the file is damaged, has no name of a class, or two classes have the same name.
    """
    names: Mapping[str, str] = {folder: folder for folder in folders}
    path = next((source / file for file in (NAMES_JSON, SYNSETS) if (source / file).is_file()), None)
    if path is not None:
        if path.name == NAMES_JSON:
            names = read_json(path, NAMES)
        else:
            lines = (line.partition(" ") for line in read_lines(path, "lines of a synset and its names"))
            names = {synset: text.partition(",")[0].strip() for synset, _, text in lines}
        for folder in folders:
            name = names.get(folder) if isinstance(names, dict) else None
            if not isinstance(name, str) or not name.strip():
                raise InputError(
                    f"{path}: has no name of the class in {source / 'train' / folder}; expected one of each folder, as "
                    f"{NAMES if path.name == NAMES_JSON else 'a line of the synset and its names'}"
                )
    shown = [names[folder].strip() for folder in folders]
    times = collections.Counter(["background", *shown])
    distinct = [name if times[name] == 1 else f"{name} ({folder})" for name, folder in zip(shown, folders, strict=True)]
    equal = [name for name, count in collections.Counter(distinct).items() if count > 1]
    if equal:
        raise InputError(f"{path}: two classes are called {equal[0]!r}; expected a name of its own for each folder")
    return distinct
