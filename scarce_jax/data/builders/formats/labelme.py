"""Format `labelme`: a JSON file of shapes for each image, as labelme writes it.

Shapes are drawn by labelme's rules: outlines belong to a shape, a line is 10 pixels wide, and a point is a disc of
radius 5; later shapes cover earlier ones.
"""

from __future__ import annotations

import base64
import io
import math
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from scarce_jax.data.builders.formats.classes import Classes
from scarce_jax.data.builders.formats.layout import DrawnMask, Item, Layout, by_name
from scarce_jax.data.builders.formats.objects import canvas, index_of, object_classes, paste
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.builders.formats.splits import by_first_folder, in_order
from scarce_jax.data.builders.formats.tree import Tree, pictures
from scarce_jax.data.decoding import FORMATS, read_size
from scarce_jax.data.image_files import SUFFIXES
from scarce_jax.errors import InputError, plural

HOLDS = "a JSON file of labelme beside each labelled image, and labels.txt if the order of the classes matters"
LINE, POINT = 10, 5
"""Width of a line and radius of a point, in pixels."""


def find(tree: Tree) -> str:
    """Tells that a source has this format, or returns ""."""
    files = tree.json_kinds.get("labelme", [])
    return f"labelme's JSON in {files[0].relative_to(tree.root)}" if files else ""


def read(source: pathlib.Path, options: Options) -> Layout:
    """Reads all JSON files of labelme in a folder, and the images beside them that have none.

    Raises:
      InputError: a JSON file cannot be read, its image is missing, or it has a label that is no class.
    """
    contents, images = {}, {}
    embedded, root = _Embedded(), options.path("images")
    for path, content in Tree(source).json_of("labelme", "JSON of labelme"):
        images[path] = _image(path, content, root, embedded)
        # Images inside the files would fill the memory.
        contents[path] = {key: value for key, value in content.items() if key != "imageData"}
    twice = {image: path for path, image in images.items()}
    for path, image in images.items():
        if twice[image] != path:
            raise InputError(f"{path} and {twice[image]}: both are of the image {image}; remove one of them")
    labels = {label for path, content in contents.items() for label in _labels(path, content)}
    classes = object_classes(source, options, labels, str(source))
    names = {path: path.relative_to(source).with_suffix("").as_posix() for path in contents}
    unlabelled = _unlabelled(source, root, [image for image in images.values() if not embedded.has(image)])
    split_of = by_first_folder([*names.values(), *unlabelled], source)
    splits: dict[str, list[Item]] = {}
    for path, content in contents.items():
        split, name = split_of[names[path]]
        image = images[path]
        item = Item(name=name, image=image, fine=_mask(path, content, image, classes))
        splits.setdefault(split, []).append(item)
    for name, image in unlabelled.items():
        split, name = split_of[name]
        splits.setdefault(split, []).append(Item(name=name, image=image))
    notes = []
    if classes.source == str(source):
        notes.append("the classes are the labels in alphabetical order; labels.txt or --classes sets another")
    if embedded.count:
        notes.append(f"{plural(embedded.count, 'image')} taken from imageData, since the file of imagePath is missing")
    return Layout(
        format="labelme",
        classes=classes,
        splits=in_order({split: by_name(items, source) for split, items in splits.items()}),
        notes=tuple(notes),
    )


def _unlabelled(
    source: pathlib.Path, root: pathlib.Path | None, labelled: list[pathlib.Path]
) -> dict[str, pathlib.Path]:
    """The other images in the folders of labelled ones, by the name that they have in the source."""
    used = {image.resolve() for image in labelled}
    top = (root or source).resolve()
    folders = {top} if root else {image.parent for image in used}
    found = {}
    for folder in sorted(folders):
        inside = folder.relative_to(top).as_posix() if folder.is_relative_to(top) else "."
        for stem, image in pictures(folder, nested=root is not None).items():
            if image.resolve() not in used:
                found[stem if inside == "." else f"{inside}/{stem}"] = image
    return found


class _Embedded:
    """Images inside JSON files, as files in a temporary folder that lives as long as the process."""

    folder: tempfile.TemporaryDirectory | None = None
    count = 0

    def has(self, image: pathlib.Path) -> bool:
        """Whether an image is one of them."""
        return self.folder is not None and image.parent == pathlib.Path(self.folder.name)

    def write(self, path: pathlib.Path, data: str) -> pathlib.Path:
        """Writes the `imageData` of a JSON file; raises InputError if it is no image."""
        try:
            content = base64.b64decode(data, validate=False)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                suffix = (image.format or "png").lower()
        except Exception as error:  # Pillow's parsers raise nearly anything on damaged data.
            raise InputError(f"{path}: imageData cannot be decoded ({error}); put the image beside the file") from error
        if _Embedded.folder is None:
            _Embedded.folder = tempfile.TemporaryDirectory(prefix="scarce-jax-labelme-")
        self.count += 1
        file = pathlib.Path(_Embedded.folder.name, f"{id(self):x}-{self.count}-{path.stem}.{suffix}")
        file.write_bytes(content)
        return file


def _image(
    path: pathlib.Path, content: Mapping[str, Any], root: pathlib.Path | None, embedded: _Embedded
) -> pathlib.Path:
    """The image of a JSON file: that of imagePath, else one with its name beside it, else imageData."""
    stated = str(content.get("imagePath") or "").replace("\\", "/")
    name = pathlib.PurePosixPath(stated).name
    places = [path.parent / stated, path.parent / name] if stated else []
    if root is not None and stated:
        places = [root / path.parent.name / name, root / name, *places]
    places += [path.with_suffix(suffix) for suffix in SUFFIXES]
    found = next((place for place in places if place.is_file()), None)
    if found is not None:
        return found
    if content.get("imageData"):
        return embedded.write(path, content["imageData"])
    raise InputError(
        f"{path}: its image {stated or path.stem!r} is missing and it holds no imageData; put the image beside it, or "
        "give --images DIR"
    )


def _labels(path: pathlib.Path, content: Mapping[str, Any]) -> list[str]:
    try:
        return [str(shape["label"]) for shape in content["shapes"]]
    except (TypeError, KeyError) as error:
        raise InputError(f"{path}: a shape without a label ({type(error).__name__}: {error}); draw it again") from error


def _mask(path: pathlib.Path, content: Mapping[str, Any], image: pathlib.Path, classes: Classes) -> DrawnMask:
    def draw() -> np.ndarray:
        size = content.get("imageHeight"), content.get("imageWidth")
        mask = canvas(size if all(size) else read_size(image), classes)
        for shape in content["shapes"]:
            region = shape_region(shape, mask.shape)
            mask[region] = index_of(str(shape["label"]), classes)
        return mask

    for label in _labels(path, content):
        try:
            index_of(label, classes)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
    return DrawnMask(path, f"image {image.name}", draw)


def shape_region(shape: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels of one shape, bool [H, W].

    Raises:
      ValueError, KeyError: the shape is of an unknown type, or its points do not fit the type.
    """
    kind = shape.get("shape_type") or "polygon"
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "mask":
        region = np.zeros(size, np.uint8)
        paste(region, _decoded(shape["mask"]), points[0], 1)
        return region.astype(bool)
    picture = Image.new("1", size[::-1])
    pencil = ImageDraw.Draw(picture)
    needed = {"rectangle": 2, "circle": 2, "line": 2, "linestrip": 2, "point": 1, "points": 1}.get(kind, 3)
    if len(points) < needed:
        raise ValueError(f"a {kind} of {len(points)} points, expected {needed} or more")
    if kind in ("polygon", "oriented_rectangle"):
        pencil.polygon(points, outline=1, fill=1)
    elif kind == "rectangle":
        xs, ys = zip(*points, strict=True)
        pencil.rectangle([(min(xs), min(ys)), (max(xs), max(ys))], outline=1, fill=1)
    elif kind == "circle":
        (x, y), edge = points[0], points[1]
        radius = math.dist((x, y), edge)
        pencil.ellipse([(x - radius, y - radius), (x + radius, y + radius)], outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        pencil.line(points, fill=1, width=LINE)
    elif kind in ("point", "points"):
        for x, y in points:
            pencil.ellipse([(x - POINT, y - POINT), (x + POINT, y + POINT)], outline=1, fill=1)
    else:
        raise ValueError(
            f"the shape_type {kind!r}, expected polygon, rectangle, circle, line, linestrip, point or mask"
        )
    return np.array(picture)


def _decoded(data: str) -> np.ndarray:
    """A mask shape's PNG as bool [h, w]."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(data)), formats=FORMATS) as image:
            return np.array(image.convert("L")) > 0
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged data.
        raise ValueError(f"a mask that is no PNG ({error})") from error
