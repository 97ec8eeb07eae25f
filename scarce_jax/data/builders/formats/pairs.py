"""Format `pairs`: a folder of images and one of masks, perhaps with a folder for each split in both.

Flat `images` and `masks`, mmsegmentation's `img_dir` and `ann_dir`, ADE20K's `images/training` and
`annotations/training`, and any two folders of the flags `--images` and `--masks`.
"""

from __future__ import annotations

import pathlib

from scarce_jax.data.builders.formats.find_classes import find_classes
from scarce_jax.data.builders.formats.layout import Layout
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.builders.formats.pairing import Folders, pair
from scarce_jax.data.builders.formats.splits import in_order
from scarce_jax.data.builders.formats.tree import IMAGE_FOLDERS, MASK_FOLDERS, Tree
from scarce_jax.data.image_files import list_images
from scarce_jax.errors import InputError

HOLDS = "images and masks (or img_dir and ann_dir, ...), perhaps with train and val in both, and a file of classes"


def find(tree: Tree) -> str:
    """Tells that a source has this format, or returns ""."""
    images, masks = tree.named(IMAGE_FOLDERS), tree.named(MASK_FOLDERS)
    # JPEGImages and SegmentationClass are the format `voc`.
    if not images or not masks or "jpegimages" in {folder.lower() for folder in images}:
        return ""
    return f"{' and '.join(images)} beside {' and '.join(masks)}"


def folders_of(source: pathlib.Path, options: Options) -> list[Folders]:
    """The folders of images and masks: those of the flags, else those of the source.

    Raises:
      InputError: the source has no such folders, or several.
    """
    if options.masks is not None:
        images = options.path("images") or source
        folders = Folders(split="", images=images, masks=options.path("masks"), coarse=options.path("coarse"))
        _check(folders, options)
        return [folders]
    tree = Tree(source)
    found = []
    for names, what, flag in ((IMAGE_FOLDERS, "images", "--images"), (MASK_FOLDERS, "masks", "--masks")):
        folders = tree.named(names)
        if len(folders) != 1:
            listed = " and ".join(folders) or "no folder"
            raise InputError(f"{source}: {listed} may be the {what}, expected one; give {flag} DIR")
        found.append(source / folders[0])
    coarse = options.path("coarse") or (source / "coarse" if tree.images("coarse") else None)
    return [Folders(split="", images=options.path("images") or found[0], masks=found[1], coarse=coarse)]


def _check(folders: Folders, options: Options) -> None:
    """Raises InputError if the flags name one folder twice, or a folder of masks that has none."""
    if folders.masks.resolve() == folders.images.resolve():
        raise InputError(
            f"{folders.masks}: --images and --masks name one folder; expected images and masks in folders of their "
            f"own. How to move them: {options.check_command(folders.images)}"
        )
    if folders.coarse is not None and folders.coarse.resolve() in (folders.images.resolve(), folders.masks.resolve()):
        raise InputError(
            f"{folders.coarse}: --coarse names the folder of other files; expected a folder of coarse masks"
        )
    for folder in (folders.masks, folders.coarse):
        if folder is not None and not list_images(folder):
            raise InputError(f"{folder}: no image file; expected masks, one image file each")


def read(source: pathlib.Path, options: Options) -> Layout:
    """Reads two folders, or three with coarse masks, matched by name.

    Raises:
      InputError: there are no classes, or as in `folders_of` and `pair`.
    """
    (folders,) = folders_of(source, options)
    classes = find_classes(source, options, HOLDS)
    splits = in_order(pair(folders, classes))
    return Layout(format="pairs", classes=classes, splits=splits, has_coarse=folders.coarse is not None)
