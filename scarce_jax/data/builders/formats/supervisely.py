"""Format `supervisely`: a project of Supervisely: meta.json, DATASET/img, and DATASET/ann or DATASET/masks_machine."""

from __future__ import annotations

import base64
import contextlib
import io
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from PIL import Image

from scarce_jax.data.builders.files import refuse_stray
from scarce_jax.data.builders.formats.class_files import behind, supervisely_classes
from scarce_jax.data.builders.formats.classes import Classes, make_classes
from scarce_jax.data.builders.formats.layout import DrawnMask, FileMask, Item, Layout, Mask, by_name
from scarce_jax.data.builders.formats.objects import canvas, fill_polygon, index_of, object_classes, paste
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.builders.formats.splits import canonical, in_order
from scarce_jax.data.builders.formats.tree import Tree, kind_of, pictures
from scarce_jax.data.decoding import FORMATS, MAX_PIXELS
from scarce_jax.data.files import read_json
from scarce_jax.data.image_files import composed
from scarce_jax.errors import InputError

META, COLOURS = "meta.json", "obj_class_to_machine_color.json"
IMAGES, ANNOTATIONS, MACHINE = "img", "ann", "masks_machine"
HOLDS = f"{META}, DATASET/{IMAGES} and DATASET/{ANNOTATIONS}; or {COLOURS}, DATASET/{IMAGES} and DATASET/{MACHINE}"


def find(tree: Tree) -> str:
    """Tells that a source has this format, or returns ""."""
    datasets = [
        folder
        for folder in tree.folders()
        if tree.has(f"{folder}/{IMAGES}") and (tree.has(f"{folder}/{ANNOTATIONS}") or tree.has(f"{folder}/{MACHINE}"))
    ]
    classes = next((file for file in (META, COLOURS) if tree.has(file)), "")
    return f"{datasets[0]}/{IMAGES} and {classes}" if datasets and classes else ""


def read(source: pathlib.Path, options: Options) -> Layout:
    """Reads all datasets of a project. One called train, val or test is that split; all others are train.

    Annotations are drawn where there are any, later objects over earlier ones; otherwise the machine masks are read.

    Raises:
      InputError: a file is missing or cannot be read, or an annotation has no image.
    """
    datasets = sorted(path.parent for path in source.glob(f"*/{IMAGES}") if path.is_dir())
    drawn = [dataset for dataset in datasets if (dataset / ANNOTATIONS).is_dir()]
    classes = _classes(source, options, machine=not drawn)
    splits: dict[str, list[Item]] = {}
    for dataset in datasets:
        images = pictures(dataset / IMAGES)
        masks = _annotations(dataset, images, classes) if drawn else _machine_masks(dataset, images, classes)
        split = canonical(dataset.name)
        prefix = "" if split else f"{dataset.name}/"
        splits.setdefault(split or "train", []).extend(
            Item(name=prefix + stem, image=path, fine=masks.get(stem)) for stem, path in images.items()
        )
    if not datasets:
        raise InputError(f"{source}: no folder in it holds a folder {IMAGES}; expected {HOLDS}")
    ordered = in_order({split: by_name(items, source) for split, items in splits.items()})
    return Layout(format="supervisely", classes=classes, splits=ordered)


def _classes(source: pathlib.Path, options: Options, machine: bool) -> Classes:
    if options.classes is not None:
        return object_classes(source, options, (), str(source))
    if not machine:
        path = source / META
        content = read_json(path, f"the {META} of a project, with its classes")
        if kind_of(content) != "supervisely":
            raise InputError(f"{path}: has no classes with titles; expected the {META} of a Supervisely project")
        return supervisely_classes(path, content["classes"])
    path = source / COLOURS
    content = read_json(path, '{"class": [r, g, b], ...}')
    try:
        colours = {str(name): tuple(int(x) for x in colour) for name, colour in content.items()}
        if not all(len(colour) == 3 for colour in colours.values()):
            raise ValueError("a colour without three numbers")
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f'{path}: {error}; expected {{"class": [r, g, b], ...}}') from error
    classes = behind(str(path), list(colours))
    # Black is what no object covers.
    table = {colour: classes.classes.index(name) for name, colour in colours.items()}
    table.setdefault((0, 0, 0), classes.background or 0)
    ids = {colour[0]: k for colour, k in table.items() if len(set(colour)) == 1}
    return make_classes(classes.classes, str(path), background=classes.background, colours=table, ids=ids)


def _machine_masks(dataset: pathlib.Path, images: Mapping[str, pathlib.Path], classes: Classes) -> dict[str, Mask]:
    masks = pictures(dataset / MACHINE)
    refuse_stray(masks, images, dataset / IMAGES)
    return {stem: FileMask(path, classes) for stem, path in masks.items()}


def _annotations(dataset: pathlib.Path, images: Mapping[str, pathlib.Path], classes: Classes) -> dict[str, Mask]:
    """Annotation files, which are named after the image, with or without its suffix."""
    by_file = {composed(path.relative_to(dataset / IMAGES).as_posix()): stem for stem, path in images.items()}
    masks: dict[str, Mask] = {}
    folder = dataset / ANNOTATIONS
    for path in sorted(folder.rglob("*.json")):
        name = composed(path.relative_to(folder).as_posix().removesuffix(".json"))
        stem = by_file.get(name, name)
        if stem not in images:
            raise InputError(f"{path}: no image {name} in {dataset / IMAGES}; add the image, or remove the file")
        masks[stem] = _mask(path, images[stem], classes)
    return masks


def _mask(path: pathlib.Path, image: pathlib.Path, classes: Classes) -> DrawnMask:
    def draw() -> np.ndarray:
        content = read_json(path, "an annotation of Supervisely")
        mask = canvas((content["size"]["height"], content["size"]["width"]), classes)
        for one in content["objects"]:
            _draw(mask, one, index_of(str(one["classTitle"]), classes))
        return mask

    return DrawnMask(path, f"image {image.name}", draw)


def _draw(mask: np.ndarray, one: Mapping[str, Any], value: int) -> None:
    kind = one.get("geometryType") or ("bitmap" if one.get("bitmap") else "polygon")
    if kind == "bitmap":
        paste(mask, decode_bitmap(one["bitmap"]["data"]), one["bitmap"]["origin"], value)
        return
    outer = one["points"]["exterior"]
    if kind == "polygon":
        region = np.zeros_like(mask)
        fill_polygon(region, outer, 1)
        for hole in one["points"].get("interior", ()):
            fill_polygon(region, hole, 0)
        mask[region > 0] = value
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = np.sort(np.rint(np.array(outer, np.float64)).astype(int), axis=0)
        mask[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = value
    elif kind in ("line", "polyline"):
        cv2.polylines(mask, [np.rint(np.array(outer)).astype(np.int32)], False, int(value))
    elif kind == "point":
        (x, y), *_ = np.rint(np.array(outer)).astype(int)
        paste(mask, np.ones((1, 1), bool), (x, y), value)
    else:
        raise ValueError(f"an object of the type {kind!r}, expected bitmap, polygon, rectangle, line or point")


def decode_bitmap(data: str) -> np.ndarray:
    """Decodes a bitmap, a PNG in base64 that may be compressed once more: bool [h, w].

    Set pixels are those of the alpha channel if there is one, else all that are not 0.

    Raises:
      ValueError: it is no such PNG.
    """
    try:
        png = base64.b64decode(data)
        with contextlib.suppress(zlib.error):
            png = zlib.decompressobj().decompress(png, MAX_PIXELS)
        with Image.open(io.BytesIO(png), formats=FORMATS) as image:
            alpha = image.mode in ("RGBA", "LA")
            return np.array(image.getchannel("A") if alpha else image.convert("L")) > 0
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged data.
        raise ValueError(f"a bitmap that is no PNG ({error})") from error
