"""Pairs the images, masks and coarse masks of folders by their names."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Iterable, Sequence

from scarce_jax.data.files import SUFFIXES, scan_images
from scarce_jax.doctor.facts import Example
from scarce_jax.doctor.findings import Finding, fault, fault_of
from scarce_jax.errors import InputError

SPLITS = ("train", "val", "test")
Files = dict[str, pathlib.Path]


def pair_folders(
    images: pathlib.Path, masks: pathlib.Path | None, coarse: pathlib.Path | None, split: str, faults: list[Finding]
) -> list[Example]:
    """The examples of an image folder, matched by name without suffix; subfolders are searched and part of the name.

    Args:
      split: the split of all examples; if empty, a first subfolder called train, val or test is a split.
      faults: the list to which faults of names are added.

    Raises:
      InputError: a folder is missing, or holds no image file.
    """
    files = _list_files(images, faults)
    # A folder of masks that the user named has some; in a source it may be empty.
    masks, coarse = (
        {} if folder is None else _match(files, images, folder, faults, required=not split)
        for folder in (masks, coarse)
    )
    examples = []
    for name, path in files.items():
        first, slash, _ = name.partition("/")
        own = first if slash and first in SPLITS else ""
        example = Example(split=split or own, name=name, image=path, mask=masks.get(name), coarse=coarse.get(name))
        examples.append(example)
    return examples


def _list_files(folder: pathlib.Path, faults: list[Finding], required: bool = True) -> Files:
    """Name (path from the folder, without suffix) -> image file, sorted, as every command lists them."""
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file' if folder.exists() else 'missing'}, expected a folder of image files")
    files, found = scan_images(folder)
    if not files and required:
        others = collections.Counter(pathlib.Path(error.path).suffix or "no suffix" for error in found)
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(3)) or "nothing"
        raise InputError(f"{folder}: no image file ({kinds} found); expected files ending in {', '.join(SUFFIXES)}")
    faults += map(fault_of, found)
    return files


def _match(
    images: Files, image_folder: pathlib.Path, folder: pathlib.Path, faults: list[Finding], required: bool
) -> Files:
    """Image name -> mask. Names that differ by constant parts are a fault, and matched nevertheless."""
    masks = _list_files(folder, faults, required)
    stray = [name for name in masks if name not in images]
    endings = constant_endings(images, masks) if len(stray) > len(masks) / 2 else []
    if not endings:
        for name in stray:
            faults.append(fault("mask-without-image", masks[name], f"no image {name}.* in {image_folder}"))
        return {name: path for name, path in masks.items() if name in images}
    start, end = _shared(images)
    (before, after), *others = endings
    renamed = {name: f"{before}{name[len(start) : len(name) - len(end)]}{after}" for name in images}
    matched = {} if others else {name: masks[mask] for name, mask in renamed.items() if mask in masks}
    patterns = ", ".join(repr(f"{before}*{after}") for before, after in endings)
    advice = "copy the one kind of mask that holds class ids to a folder of its own, named as the images"
    for name, path in list(matched.items())[:1]:
        advice = f"rename them, e.g. {path.name} to {pathlib.PurePath(name).name}{path.suffix}"
    observed = f"images are named {f'{start}*{end}'!r}, masks {patterns}"
    faults.append(fault("names-differ", folder, observed, advice=advice, count=len(stray)))
    return matched


def constant_endings(images: Iterable[str], masks: Iterable[str]) -> list[tuple[str, str]]:
    """The constant beginnings and ends of mask names, around the part that differs from image to image.

    Returns:
      (before, after) of every kind of mask that has a file for at least 4 in 5 images, the commonest first.
    """
    images, masks = list(images), list(masks)
    start, end = _shared(images)
    cores = {name[len(start) : len(name) - len(end)] for name in images}
    lengths = {len(core) for core in cores}
    counted = collections.Counter(
        (mask[:k], mask[k + length :])
        for mask in masks
        for length in lengths
        for k in range(len(mask) - length + 1)
        if mask[k : k + length] in cores
    )
    # One file alone cannot show what is constant.
    needed = max(2, 0.8 * min(len(images), len(masks)))
    return [pair for pair, count in counted.most_common() if count >= needed and pair != (start, end)]


def _shared(names: Sequence[str]) -> tuple[str, str]:
    """The longest beginning that all names share, and the longest end of what follows it."""
    start = os.path.commonprefix(list(names))
    return start, os.path.commonprefix([name[len(start) :][::-1] for name in names])[::-1]
