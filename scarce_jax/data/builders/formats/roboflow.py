"""Format `roboflow`: "Semantic Segmentation Masks" of Roboflow: SPLIT/x.jpg, SPLIT/x_mask.png, SPLIT/_classes.csv."""

from __future__ import annotations

import pathlib

from scarce_jax.data.builders.files import refuse_stray
from scarce_jax.data.builders.formats.class_files import read_class_file
from scarce_jax.data.builders.formats.layout import FileMask, Item, Layout
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.builders.formats.splits import in_order, split_of_folder
from scarce_jax.data.builders.formats.tree import Tree, pictures
from scarce_jax.errors import InputError

CLASSES, ENDING = "_classes.csv", "_mask"
HOLDS = f"train, valid and test with x.jpg, x{ENDING}.png and {CLASSES}"


def find(tree: Tree) -> str:
    """Tells that a source has this format, or returns ""."""
    masks = lambda names: any(pathlib.PurePosixPath(name).stem.endswith(ENDING) for name in names)
    places = [folder for folder, names in tree.names.items() if CLASSES in names and masks(names)]
    return f"{places[0]}/{CLASSES}" if places else ""


def read(source: pathlib.Path, options: Options) -> Layout:
    """Reads every folder with a list of classes.

    Raises:
      InputError: the lists differ, a mask has no image, or there is no mask at all.
    """
    folders = [path.parent for path in sorted([*source.glob(CLASSES), *source.glob(f"*/{CLASSES}")])]
    chosen = options.path("classes")
    lists = {folder: read_class_file(chosen or folder / CLASSES) for folder in folders}
    if not lists:
        raise InputError(f"{source}: has no {CLASSES}; expected {HOLDS}")
    classes = lists[folders[0]]
    for folder, other in lists.items():
        if (other.classes, other.ids) != (classes.classes, classes.ids):
            raise InputError(
                f"{folder / CLASSES}: other classes than {folders[0] / CLASSES}; expected the same, export all "
                "splits at once"
            )
    splits: dict[str, list[Item]] = {}
    for folder in folders:
        split = "train" if folder == source else split_of_folder(folder.name, folder)
        if split in splits:
            raise InputError(f"{folder}: a second folder of the split {split!r}; rename one of them")
        files = pictures(folder, nested=False)
        masks = {stem.removesuffix(ENDING): path for stem, path in files.items() if stem.endswith(ENDING)}
        images = {stem: path for stem, path in files.items() if not stem.endswith(ENDING)}
        refuse_stray(masks, images, folder)
        splits[split] = [
            Item(name=stem, image=path, fine=FileMask(masks[stem], classes) if stem in masks else None)
            for stem, path in images.items()
        ]
    if not any(item.fine for items in splits.values() for item in items):
        raise InputError(f"{source}: no file ends in {ENDING}.png; expected {HOLDS}")
    return Layout(format="roboflow", classes=classes, splits=in_order(splits))
