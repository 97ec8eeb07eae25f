"""Images and masks in folders of their own, matched by name."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from scarce_jax.data.builders.files import masks_of
from scarce_jax.data.builders.formats.classes import Classes
from scarce_jax.data.builders.formats.layout import FileMask, Item
from scarce_jax.data.builders.formats.splits import by_first_folder
from scarce_jax.data.image_files import list_images
from scarce_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folders:
    """The folders of a split.

    Attributes:
      split: empty where subfolders say the split.
      masks, coarse: None where there is no such folder.
    """

    split: str
    images: pathlib.Path
    masks: pathlib.Path | None = None
    coarse: pathlib.Path | None = None


def pair(folders: Folders, classes: Classes) -> dict[str, list[Item]]:
    """Reads the names of a split's files.

    Returns:
      Split -> its images.

    Raises:
      InputError: there is no image, a mask has no image, or as in `list_images`.
    """
    images = list_images(folders.images)
    if not images:
        raise InputError(f"{folders.images}: no image file; expected the images of the masks")
    fine, coarse = (
        {} if folder is None else match(images, folder, folders.images) for folder in (folders.masks, folders.coarse)
    )
    split_of = {name: (folders.split, name) for name in images}
    if not folders.split:
        split_of = by_first_folder(list(images), folders.images)
    splits: dict[str, list[Item]] = collections.defaultdict(list)
    for stem, path in images.items():
        split, name = split_of[stem]
        masks = {
            field: FileMask(paths[stem], classes) if stem in paths else None
            for field, paths in (("fine", fine), ("coarse", coarse))
        }
        splits[split].append(Item(name=name, image=path, **masks))
    return dict(splits)


def match(images: Mapping[str, pathlib.Path], folder: pathlib.Path, beside: pathlib.Path) -> dict[str, pathlib.Path]:
    """Finds the masks of images: stem of the image -> mask.

    The masks have the images' names, or names that differ from them by a constant beginning and end, such as
    "a_leftImg8bit" and "a_gtFine_labelIds".

    Raises:
      InputError: a mask has no image, or there are several kinds of masks.
    """
    masks = list_images(folder)
    if masks.keys() <= images.keys():
        return masks
    endings = constant_endings(images, masks)
    if len(endings) > 1:
        kinds = ", ".join(repr(f"{before}*{after}") for before, after in endings)
        raise InputError(
            f"{folder}: several kinds of masks ({kinds}); copy the one kind that holds class ids to a folder of its own"
        )
    if endings:
        ((before, after),) = endings
        renamed = {f"{before}{core}{after}": name for name, core in cores(images).items()}
        if masks.keys() <= renamed.keys():
            return {renamed[mask]: path for mask, path in masks.items()}
    return masks_of(folder, images, beside)


def constant_endings(images: Iterable[str], masks: Iterable[str]) -> list[tuple[str, str]]:
    """The constant beginnings and ends of mask names, around the part that differs from image to image.

    Returns:
      (before, after) of every kind of mask that has a file for at least 4 in 5 images, the commonest first.
    """
    images, masks = list(images), list(masks)
    parts = {*cores(images).values()}
    lengths = {len(part) for part in parts}
    counted = collections.Counter(
        (mask[:k], mask[k + length :])
        for mask in masks
        for length in lengths
        for k in range(len(mask) - length + 1)
        if mask[k : k + length] in parts
    )
    # One file alone cannot show what is constant.
    needed = max(2, 0.8 * min(len(images), len(masks)))
    return [pair for pair, count in counted.most_common() if count >= needed and pair != shared(images)]


def shared(names: Iterable[str]) -> tuple[str, str]:
    """The longest beginning that all names share, and the longest end of what follows it."""
    names: Sequence[str] = list(names)
    start = os.path.commonprefix(names)
    return start, os.path.commonprefix([name[len(start) :][::-1] for name in names])[::-1]


def cores(names: Iterable[str]) -> dict[str, str]:
    """Name -> the part between the beginning and the end that all names share."""
    names = list(names)
    start, end = shared(names)
    return {name: name[len(start) : len(name) - len(end)] for name in names}
