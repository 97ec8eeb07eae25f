"""Format `folder`: classes.json, SPLIT/images, SPLIT/masks, SPLIT/coarse, tags.csv."""

from __future__ import annotations

import pathlib

from scarce_jax.data.builders.formats.find_classes import find_classes
from scarce_jax.data.builders.formats.layout import Item, Layout
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.builders.formats.pairing import Folders, pair
from scarce_jax.data.builders.formats.splits import in_order, split_of_folder
from scarce_jax.data.builders.formats.tags import TAGS, with_tags
from scarce_jax.data.builders.formats.tree import MASK_FOLDERS, Tree, pictures
from scarce_jax.data.image_files import scan_images
from scarce_jax.errors import InputError, some

CLASSES, IMAGES, MASKS, COARSE = "classes.json", "images", "masks", "coarse"
HOLDS = (
    f"{CLASSES} and SPLIT/{IMAGES}, with SPLIT/{MASKS} and SPLIT/{COARSE} (class ids, named as the images) and "
    f"{TAGS} (lines id,class;class) if there are any; SPLIT is train, val, ..."
)


def find(tree: Tree) -> str:
    """Tells that a source has this format, or returns ""."""
    splits = [split for split in tree.folders() if tree.has(f"{split}/{IMAGES}")]
    if splits:
        return f"{splits[0]}/{IMAGES}"
    masks = [split for split in tree.folders() if tree.has(f"{split}/{MASKS}")]
    return f"{masks[0]}/{MASKS}" if masks and tree.has(CLASSES) else ""


def read(source: pathlib.Path, options: Options) -> Layout:
    """Reads every split that has images.

    Raises:
      InputError: there are no classes or no split, a mask has no image, or tags.csv is wrong.
    """
    classes = find_classes(source, options, HOLDS)
    splits: dict[str, list[Item]] = {}
    every = folders_of(source)
    for folders in every:
        splits |= pair(folders, classes)
        _refuse_unread(source / folders.images.parent.name, folders, splits[folders.split])
    splits, has_tags = with_tags(source, classes, in_order(splits), {f.split: f.images.parent for f in every})
    return Layout(
        format="folder",
        classes=classes,
        splits=splits,
        has_coarse=any(folders.coarse for folders in every),
        has_tags=has_tags,
    )


def folders_of(source: pathlib.Path) -> list[Folders]:
    """The folders of every split.

    Raises:
      InputError: a folder's name cannot be that of a split, a split is there twice, has masks and no images, or has
        several folders that may be its masks.
    """
    found: dict[str, Folders] = {}
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not any((folder / kind).is_dir() for kind in (IMAGES, MASKS, COARSE)):
            continue
        if not (folder / IMAGES).is_dir():
            raise InputError(f"{folder}: has masks and no folder {IMAGES}; expected {HOLDS}")
        split = split_of_folder(folder.name, folder)
        if split in found:
            raise InputError(
                f"{found[split].images.parent} and {folder}: both are the split {split!r}; rename one of them"
            )
        coarse = folder / COARSE
        found[split] = Folders(
            split=split,
            images=folder / IMAGES,
            masks=mask_folder(folder),
            coarse=coarse if coarse.is_dir() else None,
        )
    if not found:
        raise InputError(f"{source}: no folder in it holds a folder {IMAGES}; expected {HOLDS}")
    return list(found.values())


def mask_folder(split: pathlib.Path) -> pathlib.Path | None:
    """`masks`, or the one folder of images with another usual name for them; None if there is none.

    Raises:
      InputError: several folders may be the masks, or one by its name holds other files.
    """
    if (split / MASKS).is_dir():
        return split / MASKS
    folders = sorted(path for path in split.iterdir() if path.is_dir() and path.name.lower() in MASK_FOLDERS)
    other = [folder for folder in folders if not pictures(folder) and any(folder.iterdir())]
    folders = [folder for folder in folders if pictures(folder)]
    if other and not folders:
        suffixes = ", ".join(sorted({path.suffix or "no suffix" for path in other[0].iterdir()})[:3])
        raise InputError(
            f"{other[0]}: holds no image ({suffixes} files), and is not read; expected masks, one image file each. "
            "Export the labels as masks or in another format, or move the folder out of the split"
        )
    if len(folders) > 1:
        names = " and ".join(folder.name for folder in folders)
        raise InputError(f"{split}: {names} may be the masks; rename the right one to {MASKS}")
    return folders[0] if folders else None


def unread(split: pathlib.Path, folders: Folders) -> list[pathlib.Path]:
    """The folders of a split that are not read."""
    used = {folders.images, folders.masks, folders.coarse}
    return sorted(
        path for path in split.iterdir() if path.is_dir() and path not in used and not path.name.startswith(".")
    )


def count_images(folder: pathlib.Path) -> int:
    """The number of image files in a folder and below it."""
    return len(scan_images(folder)[0])


def _refuse_unread(split: pathlib.Path, folders: Folders, items: list[Item]) -> None:
    """Raises InputError if there are no masks, but a folder with the names of the images, which may be them."""
    names = {item.name for item in items}
    for folder in unread(split, folders) if folders.masks is None else ():
        found = names & pictures(folder).keys()
        if found:
            raise InputError(
                f"{folder}: {len(found)} files are named as images ({some(sorted(found), 3)}), and not read; rename "
                f"the folder to {MASKS} if these are masks, or move it out of the split"
            )
