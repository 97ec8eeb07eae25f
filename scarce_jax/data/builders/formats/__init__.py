"""Source folders of `folder/NAME`: one reader for each format, and the choice among them.

A reader makes a `Layout` of a folder. Only names and annotations are read for it; masks are read or drawn later, one by
one.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from collections.abc import Callable

from scarce_jax.data.builders.formats import (
    coco,
    folder_layout,
    label_studio,
    labelme,
    pairs,
    roboflow,
    supervisely,
    voc,
)
from scarce_jax.data.builders.formats.class_files import CLASS_FILES, read_class_file
from scarce_jax.data.builders.formats.classes import Classes, read_classes
from scarce_jax.data.builders.formats.layout import DrawnMask, FileMask, Item, Layout, Mask
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.builders.formats.splits import divide
from scarce_jax.data.builders.formats.tree import Tree
from scarce_jax.errors import InputError, nearest, some


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to arrange images and labels in a folder.

    Attributes:
      holds: what such a folder holds, for messages.
      find: tells by what a folder is recognised, or "" if it is not of this format.
      read: reads the folder.
    """

    holds: str
    find: Callable[[Tree], str]
    read: Callable[[pathlib.Path, Options], Layout]


FORMATS = {
    "folder": Format(folder_layout.HOLDS, folder_layout.find, folder_layout.read),
    "pairs": Format(pairs.HOLDS, pairs.find, pairs.read),
    "voc": Format(voc.HOLDS["voc"], voc.find_voc, voc.read),
    "cvat": Format(voc.HOLDS["cvat"], voc.find_cvat, voc.read_cvat),
    "labelme": Format(labelme.HOLDS, labelme.find, labelme.read),
    "labelme2voc": Format(voc.HOLDS["labelme2voc"], voc.find_labelme2voc, voc.read_labelme2voc),
    "label-studio": Format(label_studio.HOLDS, label_studio.find, label_studio.read),
    "roboflow": Format(roboflow.HOLDS, roboflow.find, roboflow.read),
    "supervisely": Format(supervisely.HOLDS, supervisely.find, supervisely.read),
    "coco": Format(coco.HOLDS, coco.find, coco.read),
}
"""Name (a value of `--format`) -> format."""

OTHER_DATASETS = {
    "leftImg8bit": "cityscapes",
    "gtFine": "cityscapes",
    "trainannot": "camvid",
    "SegmentationClassAug": "voc",
}
"""Folder of a published dataset that has a builder of its own -> its name."""


class UnknownFormat(InputError):
    """A folder is of no format that is read, and of no published dataset."""


def choose(source: pathlib.Path, options: Options) -> str:
    """The name of a folder's format.

    Raises:
      UnknownFormat: the folder is of none.
      InputError: the folder or one of `options` is missing, `options.format` is unknown, or the folder is of several
        formats or that of a published dataset.
    """
    if options.format not in ("auto", *FORMATS):
        names = ", ".join(("auto", *FORMATS))
        raise InputError(
            f"--format {options.format}: unknown{nearest(options.format, FORMATS)}; expected one of {names}"
        )
    if options.coarse is not None and options.masks is None:
        raise InputError("--coarse DIR needs --images DIR and --masks DIR")
    for field in ("images", "masks", "coarse"):
        folder = options.path(field)
        if folder is not None and not folder.is_dir():
            state = "a file" if folder.exists() else "missing"
            raise InputError(f"--{field} {folder}: {state}, expected a folder of image files")
    if options.masks is not None:
        if options.images is None or options.format not in ("auto", "pairs"):
            raise InputError("--masks DIR goes with --images DIR, and with no --format but pairs")
        return "pairs"
    if not source.is_dir():
        state = "a file" if source.exists() else "missing"
        raise InputError(f"--source {source}: {state}, expected a folder that holds {folder_layout.HOLDS}")
    if options.format != "auto":
        return options.format
    tree = Tree(source)
    candidates = {name: evidence for name, one in FORMATS.items() if (evidence := one.find(tree))}
    if len(candidates) == 1:
        return next(iter(candidates))
    if candidates:
        listed = "; ".join(f"{name} ({evidence})" for name, evidence in candidates.items())
        raise InputError(f"{source}: may be of several formats: {listed}; choose one with --format NAME")
    fault = f"{source}: of no known format; it has {tree.content()}"
    other = next((name for folder, name in OTHER_DATASETS.items() if tree.has(folder)), "")
    if other:
        command = shlex.join(["scarce-jax", "prepare", other, "--source", str(source)])
        raise InputError(f"{fault}; this looks like the dataset {other}: {command}")
    broken = [str(path.relative_to(source)) for path in tree.json_kinds.get("unreadable", ())]
    damage = f"not readable as JSON: {some(broken, 3)}, which may hold the annotations; " if broken else ""
    known = [f"  {name}: {one.holds}" for name, one in FORMATS.items()]
    expected = f"{damage}expected one of these, or --images DIR --masks DIR --classes FILE for any two folders:"
    raise UnknownFormat("\n".join([f"{fault}; {expected}", *known]))


def read_source(source: pathlib.Path, options: Options | None = None) -> Layout:
    """Reads what a source folder holds, with the validation split that the options ask for.

    Raises:
      InputError: as in `choose` and in the reader of the format, or there is no image.
    """
    options = options or Options()
    name = choose(source, options)
    layout = divide(FORMATS[name].read(source, options), options.val)
    if not any(True for _ in layout.items()):
        raise InputError(f"{source}: has no image; expected {FORMATS[name].holds}")
    return layout


__all__ = [
    "CLASS_FILES",
    "FORMATS",
    "Classes",
    "DrawnMask",
    "FileMask",
    "Format",
    "Item",
    "Layout",
    "Mask",
    "Options",
    "choose",
    "read_class_file",
    "read_classes",
    "read_source",
]
