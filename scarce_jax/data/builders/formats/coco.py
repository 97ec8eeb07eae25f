"""Format `coco`: JSON files with images, annotations and categories, as COCO has them.

Annotations are drawn in the order of the file, later ones over earlier ones, by pycocotools. A pixel that none covers
is background. Groups (`iscrowd`) have their class like all others, because annotation tools mark drawn masks so.
"""

from __future__ import annotations

import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scarce_jax.data.builders.coco_masks import fill
from scarce_jax.data.builders.formats.class_files import of_categories
from scarce_jax.data.builders.formats.classes import Classes
from scarce_jax.data.builders.formats.layout import DrawnMask, Item, Layout, by_name, reason
from scarce_jax.data.builders.formats.objects import canvas, index_of, object_classes
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.builders.formats.splits import NAMES, canonical, in_order
from scarce_jax.data.builders.formats.tree import Tree
from scarce_jax.data.image_files import composed
from scarce_jax.errors import InputError, plural, some

HOLDS = "JSON files with images, annotations and categories (one per split), and the images"


def find(tree: Tree) -> str:
    """Tells that a source has this format, or returns ""."""
    files = tree.json_kinds.get("coco", [])
    return f"COCO's JSON in {files[0].relative_to(tree.root)}" if files else ""


def read(source: pathlib.Path, options: Options) -> Layout:
    """Reads every JSON file of COCO's form; its name or its folder says the split, such as instances_train.json.

    Raises:
      InputError: the categories of two files differ, two files are of one split, or an image is missing.
    """
    contents: dict[pathlib.Path, Mapping[str, Any]] = dict(Tree(source).json_of("coco", HOLDS))
    if not contents:
        raise InputError(f"{source}: no JSON file has images, annotations and categories; expected {HOLDS}")
    first = next(iter(contents))
    own = {path: of_categories(path, content["categories"]) for path, content in contents.items()}
    classes = own[first] if options.classes is None else object_classes(source, options, (), str(source))
    splits: dict[str, list[Item]] = {}
    origin: dict[str, pathlib.Path] = {}
    notes, crowds, unlabelled = [], 0, 0
    for path, content in contents.items():
        if own[path].ids != own[first].ids or own[path].classes != own[first].classes:
            raise InputError(f"{path}: other categories than {first}; expected the same ids and names in all files")
        split = _split(path, len(contents) > 1)
        if split in splits:
            raise InputError(
                f"{origin[split]} and {path}: both are the split {split!r}; put train or val "
                "into their names, or move one out of the folder"
            )
        origin[split] = path
        splits[split] = _items(path, content, split, source, options.path("images"), classes)
        crowds += sum(bool(one.get("iscrowd")) for one in content["annotations"])
        unlabelled += sum(item.fine is None for item in splits[split])
    if crowds:
        notes.append(f"{plural(crowds, 'annotation')} with iscrowd: drawn as their class, like all others")
    if unlabelled:
        notes.append(f"{plural(unlabelled, 'image')} without annotations: unlabelled")
    return Layout(format="coco", classes=classes, splits=in_order(splits), notes=tuple(notes))


def _split(path: pathlib.Path, several: bool) -> str:
    """The split in a file's name, such as instances_train2017, else in its folder's; train if it is the only file."""
    words = "".join(c if c.isalpha() else " " for c in path.stem).split()
    splits = {canonical(word) for word in words} - {""} or {canonical(path.parent.name)} - {""}
    if len(splits) == 1:
        return splits.pop()
    if several or splits:
        names = ", ".join(name for every in NAMES.values() for name in every)
        raise InputError(f"{path}: its name does not say which split it is; put one of {names} into it")
    return "train"


def _items(
    path: pathlib.Path,
    content: Mapping[str, Any],
    split: str,
    source: pathlib.Path,
    root: pathlib.Path | None,
    classes: Classes,
) -> list[Item]:
    try:
        names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
        regions: dict[Any, list[Mapping[str, Any]]] = {record["id"]: [] for record in content["images"]}
        for one in content["annotations"]:
            if one["image_id"] not in regions:
                raise ValueError(f"annotation {one.get('id')} is of the image {one['image_id']}, which is not listed")
            regions[one["image_id"]].append(one)
            if one["category_id"] not in names:
                raise ValueError(
                    f"annotation {one.get('id')} has the category {one['category_id']}, which is not listed"
                )
            index_of(names[one["category_id"]], classes)
        items, missing, taken = [], [], {}
        for record in content["images"]:
            image = _image(str(record["file_name"]), split, path, source, root)
            if image is None:
                missing.append(str(record["file_name"]))
                continue
            if image in taken:
                raise ValueError(f"{record['file_name']} and {taken[image]} are the same file, {image}")
            taken[image] = record["file_name"]
            own = regions[record["id"]]
            mask = _mask(path, record, own, names, classes) if own else None
            name = pathlib.PurePosixPath(str(record["file_name"]).replace("\\", "/")).with_suffix("").as_posix()
            items.append(Item(name=composed(name.strip("/")), image=image, fine=mask))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {reason(error)}; expected COCO's fields; export it again") from error
    if missing:
        raise InputError(
            f"{path}: {plural(len(missing), 'image')} of it missing ({some(missing, 3)}); looked in {source}, in "
            f"images, in {split} and beside the file. Put them there, or give --images DIR"
        )
    return by_name(items, path)


def _image(
    name: str, split: str, path: pathlib.Path, source: pathlib.Path, root: pathlib.Path | None
) -> pathlib.Path | None:
    """The file of an image: where file_name says, else in the usual folders; None if it is in none of them.

    Raises:
      InputError: several folders hold it.
    """
    inside = pathlib.PurePosixPath(name.replace("\\", "/"))
    if ".." in inside.parts:
        raise ValueError(f"the file_name {name!r} leads out of the folder")
    own = path.stem.rpartition("_")[2]
    words = dict.fromkeys((*NAMES.get(split, (split,)), f"{split}2017", f"{split}2014", own))
    folders = [root] if root else [
        source, path.parent, source / "images", path.parent / "images",
        *(source / word for word in words), *(source / "images" / word for word in words),
        *(source / word / "images" for word in words), source / "data", source / "JPEGImages",
    ]  # fmt: skip
    parts = [inside] if len(inside.parts) == 1 else [inside, pathlib.PurePosixPath(inside.name)]
    for part in parts:
        relative = part.as_posix().lstrip("/")
        # Accents may be stored in two ways.
        names = dict.fromkeys((relative, composed(relative), unicodedata.normalize("NFD", relative)))
        files = [folder / name for name in names for folder in folders if (folder / name).is_file()]
        found = {file.resolve(): file for file in files}
        if len(found) > 1:
            raise InputError(f"{path}: {name} may be {' or '.join(map(str, found.values()))}; give --images DIR")
        if found:
            return next(iter(found.values()))
    return None


def _mask(
    path: pathlib.Path,
    record: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    classes: Classes,
) -> DrawnMask:
    def draw() -> np.ndarray:
        mask = canvas((record["height"], record["width"]), classes)
        for one in annotations:
            # Exports for object detection have boxes alone.
            if not one.get("segmentation"):
                raise ValueError(f"annotation {one.get('id')} has no segmentation, which a box cannot replace")
            try:
                region = fill(one["segmentation"], mask.shape)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"annotation {one.get('id')}: {reason(error)}") from error
            mask[region] = index_of(names[one["category_id"]], classes)
        return mask

    return DrawnMask(path, f"image {record['file_name']}", draw)
