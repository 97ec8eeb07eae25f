"""Formats `voc`, `cvat` and `labelme2voc`: JPEGImages, SegmentationClass, and ImageSets/Segmentation/*.txt.

CVAT ("Segmentation mask 1.1") adds labelmap.txt, which says the colour of each class; the masks are colours.
labelme2voc adds class_names.txt, and has masks of ids as PNG and as NumPy files, with -1 for void there.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from scarce_jax.data.builders.files import refuse_stray, to_indices
from scarce_jax.data.builders.formats.classes import Classes
from scarce_jax.data.builders.formats.find_classes import find_classes
from scarce_jax.data.builders.formats.layout import DrawnMask, FileMask, Item, Layout, Mask
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.builders.formats.splits import canonical, in_order, split_of_folder
from scarce_jax.data.builders.formats.tree import Tree, pictures
from scarce_jax.data.files import read_lines
from scarce_jax.data.image_files import composed
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError, nearest, plural

IMAGES, MASKS, NUMPY = "JPEGImages", ("SegmentationClass", "SegmentationClassPNG"), "SegmentationClassNpy"
LISTS = "ImageSets/Segmentation"
HOLDS = {
    "voc": "JPEGImages, SegmentationClass, a file of classes, and ImageSets/Segmentation/train.txt, val.txt, ... "
    "(PASCAL VOC itself: prepare voc)",
    "cvat": "labelmap.txt, SegmentationClass, ImageSets/Segmentation/*.txt and JPEGImages",
    "labelme2voc": "class_names.txt, JPEGImages and SegmentationClass, SegmentationClassPNG or SegmentationClassNpy",
}


def find_cvat(tree: Tree) -> str:
    """Tells that a source has the format `cvat`, or returns ""."""
    return "labelmap.txt and SegmentationClass" if tree.has("labelmap.txt", MASKS[0]) else ""


def find_labelme2voc(tree: Tree) -> str:
    """Tells that a source has the format `labelme2voc`, or returns ""."""
    masks = any(map(tree.has, (*MASKS, NUMPY)))
    return (
        "class_names.txt and SegmentationClass" if masks and tree.has("class_names.txt") and not find_cvat(tree) else ""
    )


def find_voc(tree: Tree) -> str:
    """Tells that a source has the format `voc`, or returns ""."""
    found = next((name for name in (*MASKS, NUMPY) if tree.has(name)), "")
    return found if found and not find_cvat(tree) and not find_labelme2voc(tree) else ""


def read_cvat(source: pathlib.Path, options: Options) -> Layout:
    """Reads an export of CVAT; see `read`."""
    return read(source, options, "cvat")


def read_labelme2voc(source: pathlib.Path, options: Options) -> Layout:
    """Reads what labelme2voc wrote; see `read`."""
    return read(source, options, "labelme2voc")


def read(source: pathlib.Path, options: Options, name: str = "voc") -> Layout:
    """Reads the images of the lists, or all of them where there is no list.

    Raises:
      InputError: there are no classes, no images or no masks, a listed image is missing, or two lists share an image.
    """
    classes = find_classes(source, options, HOLDS[name])
    folder = options.path("images") or source / IMAGES
    if not folder.is_dir():
        raise InputError(
            f"{folder}: missing, the images of {source / MASKS[0]}; export them too (in CVAT: Save images), or give "
            "--images DIR"
        )
    images, masks = pictures(folder), _masks(source, classes)
    refuse_stray(masks, images, folder)
    lists = _lists(source, images)
    listed = {stem for stems in lists.values() for stem in stems}
    left_out = len(images) - len(listed)
    notes = (f"{plural(left_out, 'image')} in no list of {LISTS}: left out",) if left_out else ()
    splits = {
        split: [Item(name=stem, image=images[stem], fine=masks.get(stem)) for stem in stems]
        for split, stems in lists.items()
    }
    return Layout(format=name, classes=classes, splits=in_order(splits), notes=notes)


def _masks(source: pathlib.Path, classes: Classes) -> Mapping[str, Mask]:
    for name in MASKS:
        found = pictures(source / name) if (source / name).is_dir() else {}
        if found:
            return {stem: FileMask(path, classes) for stem, path in found.items()}
    for name in (NUMPY, MASKS[0]):
        arrays = {path.stem: path for path in sorted((source / name).glob("*.npy"))}
        if arrays:
            return {stem: _numpy_mask(path, classes) for stem, path in arrays.items()}
    raise InputError(f"{source}: no mask in {', '.join((*MASKS, NUMPY))}; expected PNG files of ids or colours")


def _numpy_mask(path: pathlib.Path, classes: Classes) -> DrawnMask:
    def draw() -> np.ndarray:
        ids = np.load(path, allow_pickle=False).astype(np.int64)
        return to_indices(np.where(ids == -1, IGNORE, ids), path, "", classes.indices)

    return DrawnMask(path, "array of ids", draw)


def _lists(source: pathlib.Path, images: Mapping[str, pathlib.Path]) -> dict[str, list[str]]:
    """Split -> stems."""
    files = {path.stem: path for path in sorted((source / LISTS).glob("*.txt"))}
    if {"train", "val"} <= files.keys():
        files.pop("trainval", None)
    if not files:
        return {"train": list(images)}
    lists: dict[str, list[str]] = {}
    place: dict[str, pathlib.Path] = {}
    for name, path in files.items():
        # CVAT calls the only list "default".
        split = "train" if name in ("default", "trainval") else canonical(name) or split_of_folder(name, path)
        for number, line in enumerate(read_lines(path, "names of images without suffix, one per line"), 1):
            stem = composed(line.strip().strip('"'))
            if not stem:
                continue
            if stem not in images:
                raise InputError(f"{path}, line {number}: no image is called {stem!r}{nearest(stem, images)}; "
                                 "add it, or take the line out")  # fmt: skip
            if stem in place:
                raise InputError(
                    f"{path}, line {number}: {stem!r} is in {place[stem]} too; expected one split per image: take one "
                    "list out"
                )
            place[stem] = path
            lists.setdefault(split, []).append(stem)
    if not lists:
        raise InputError(f"{source / LISTS}: its lists are empty; expected names of images")
    return lists
