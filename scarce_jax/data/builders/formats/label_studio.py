"""Format `label-studio`: the JSON export of Label Studio, and the images of its tasks.

The export "Brush labels to PNG" has one file for each region, named task-N-annotation-M-by-USER-NAME-LABEL-K.png, but
no names of images; the JSON export has the same regions, run-length encoded, and the names.
"""

from __future__ import annotations

import pathlib
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scarce_jax.data.builders.formats.classes import Classes
from scarce_jax.data.builders.formats.layout import DrawnMask, Item, Layout, by_name
from scarce_jax.data.builders.formats.objects import canvas, fill_polygon, index_of, object_classes
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.data.builders.formats.splits import by_first_folder, in_order, without_suffix
from scarce_jax.data.builders.formats.tree import IMAGE_FOLDERS, Tree, pictures
from scarce_jax.data.decoding import MAX_PIXELS, read_size
from scarce_jax.data.image_files import composed
from scarce_jax.errors import InputError, nearest, plural

HOLDS = "the JSON export of Label Studio, and the images of its tasks (in the folder or in --images DIR)"
_REGION = re.compile(r"task-\d+-annotation-\d+-by-.*-\d+\.(png|npy)")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""

LABELS = ("brushlabels", "polygonlabels", "rectanglelabels", "labels")


def find(tree: Tree) -> str:
    """Tells that a source has this format, or returns ""."""
    files = tree.json_kinds.get("label-studio", [])
    if files:
        return f"Label Studio's JSON in {files[0].relative_to(tree.root)}"
    regions = [name for names in tree.names.values() for name in names if _REGION.fullmatch(name)]
    return f"Label Studio's regions such as {regions[0]}" if regions else ""


def read(source: pathlib.Path, options: Options) -> Layout:
    """Reads the tasks of a JSON export.

    A task without annotations is unlabelled; of several annotations the one marked as ground truth counts.

    Raises:
      InputError: there is no JSON export, the image of a task is missing, or an annotation is of an unknown kind.
    """
    tree = Tree(source)
    exports = dict(tree.json_of("label-studio", HOLDS))
    if len(exports) != 1:
        listed = ", ".join(map(str, exports)) or "no JSON export"
        raise InputError(
            f"{source}: {listed}; expected one JSON export of Label Studio (Export, JSON), which names the image of "
            "each task: the PNG files do not"
        )
    ((path, content),) = exports.items()
    tasks = {task["id"]: task for task in content if isinstance(task.get("id"), int)}
    try:
        regions = {number: _regions(task, number, path) for number, task in tasks.items()}
    except (TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"{path}: {type(error).__name__}: {error}; expected Label Studio's fields; export again"
        ) from error
    labels = {label for found in regions.values() for region in found or () for label in _labels(region)}
    classes = object_classes(source, options, labels, str(path))
    folders = tree.named(IMAGE_FOLDERS)
    root = options.path("images") or (source / folders[0] if len(folders) == 1 else source)
    images = {name: image for name, image in pictures(root).items() if not _REGION.fullmatch(image.name)}
    items = []
    for number, task in tasks.items():
        name, image = _image(task, number, images, root, path)
        found = regions[number]
        mask = None if found is None else _mask(path, number, found, image, classes)
        items.append(Item(name=name, image=image, fine=mask))
    split_of = by_first_folder([item.name for item in items], root)
    splits: dict[str, list[Item]] = {}
    for item in items:
        split, name = split_of[item.name]
        splits.setdefault(split, []).append(Item(name=name, image=item.image, fine=item.fine))
    left_out = len(images) - len({item.image for item in items})
    notes = [f"{plural(left_out, 'image')} of no task: left out"] if left_out else []
    if classes.source == str(path):
        notes.append("the classes are the labels in alphabetical order; --classes sets another")
    return Layout(
        format="label-studio",
        classes=classes,
        splits=in_order({split: by_name(here, root) for split, here in splits.items()}),
        notes=tuple(notes),
    )


def _regions(task: Mapping[str, Any], number: int, path: pathlib.Path) -> list[Mapping[str, Any]] | None:
    """The labelled regions of a task, None if nobody annotated it.

    Each region has the fields of `value` and of its result, in the JSON export as in JSON-MIN.
    """
    if "annotations" not in task:
        return [
            region
            for value in task.values()
            if isinstance(value, list)
            for region in value
            if isinstance(region, dict) and any(key in region for key in LABELS)
        ]
    done = [one for one in task["annotations"] if not one.get("was_cancelled")]
    true = [one for one in done if one.get("ground_truth")]
    done = true if len(true) == 1 else done
    if not done:
        return None
    if len(done) > 1:
        raise InputError(
            f"{path}: task {number} has {len(done)} annotations; expected one, or one marked as ground truth: remove "
            "the others in Label Studio"
        )
    results = [result for result in done[0].get("result", []) if isinstance(result.get("value"), dict)]
    # Others are choices, texts and relations.
    return [{**result, **result["value"]} for result in results if {"rle", "points", "x"} & result["value"].keys()]


def _labels(region: Mapping[str, Any]) -> list[str]:
    found = next((region[key] for key in LABELS if region.get(key)), [])
    return list(map(str, found)) if isinstance(found, list) else []


def _image(
    task: Mapping[str, Any], number: int, images: Mapping[str, pathlib.Path], root: pathlib.Path, path: pathlib.Path
) -> tuple[str, pathlib.Path]:
    """The image file of a task, and its name."""
    data = task.get("data", task)
    suffixes = {image.suffix.lower() for image in images.values()}
    texts = [value for value in data.values() if isinstance(value, str)]
    stated = next((text for text in texts if pathlib.PurePosixPath(_plain(text)).suffix.lower() in suffixes), "")
    stem = composed(without_suffix(_plain(stated)))
    by_stem: dict[str, list[str]] = {}
    for name in images:
        by_stem.setdefault(pathlib.PurePosixPath(name).name, []).append(name)
    # The longest end of the stated path that is a file here, with and without the number of an upload.
    parts = stem.strip("/").split("/")
    for k in range(len(parts)):
        name = "/".join(parts[k:])
        if name in images:
            return name, images[name]
    last = parts[-1]
    for name in (last, _UPLOADED.sub("", last)):
        found = by_stem.get(name, [])
        if len(found) == 1:
            return found[0], images[found[0]]
        if found:
            raise InputError(f"{path}: the image of task {number} may be {' or '.join(found)}; rename one of them")
    raise InputError(
        f"{path}: the image of task {number}, {stated or data!r}, is not in {root}{nearest(last, by_stem)}; put it "
        "there, or give --images DIR"
    )


def _plain(text: str) -> str:
    """The path in an address such as /data/local-files/?d=a/b.jpg or s3://bucket/b.jpg."""
    parsed = urllib.parse.urlparse(text)
    query = urllib.parse.parse_qs(parsed.query).get("d", [""])[0]
    return query or urllib.parse.unquote(parsed.path or text)


def _mask(
    path: pathlib.Path, number: int, regions: Sequence[Mapping[str, Any]], image: pathlib.Path, classes: Classes
) -> DrawnMask:
    def draw() -> np.ndarray:
        size = read_size(image)
        if regions:
            size = int(regions[0]["original_height"]), int(regions[0]["original_width"])
        mask = canvas(size, classes)
        for region in regions:
            labels = _labels(region)
            if len(labels) != 1:
                raise ValueError(f"a region with the labels {labels}, expected one")
            _draw_region(mask, region, index_of(labels[0], classes))
        return mask

    return DrawnMask(path, f"task {number}, {image.name}", draw)


def _draw_region(mask: np.ndarray, region: Mapping[str, Any], value: int) -> None:
    height, width = mask.shape
    if region.get("image_rotation"):
        raise ValueError("a region of a rotated image; rotate the file, and annotate it again")
    if "rle" in region:
        alpha = decode_rle(region["rle"]).reshape(height, width, 4)[..., 3]
        mask[alpha > 0] = value
    elif "points" in region:
        fill_polygon(mask, [(x * width / 100, y * height / 100) for x, y in region["points"]], value)
    elif "rectanglelabels" in region and not region.get("rotation"):
        x, y, w, h = (float(region[key]) / 100 for key in ("x", "y", "width", "height"))
        top, left = round(y * height), round(x * width)
        mask[max(top, 0) : round((y + h) * height), max(left, 0) : round((x + w) * width)] = value
    else:
        raise ValueError(f"a region of the type {region.get('type')!r}, expected brush, polygon or upright rectangle")


def decode_rle(data: Sequence[int]) -> np.ndarray:
    """Decodes the bytes of a brush region: uint8 [H * W * 4], RGBA.

    After the number of values (32 bits), the bits of a value less one (5) and four lengths of counters less one (4
    each) come runs: a bit that says whether one value is repeated, which of the counters follows (2), the count less
    one, and the value or values. Source: rle-pack of thi.ng/umbrella, which Label Studio writes.

    Raises:
      ValueError: the data end too early, or have no 8-bit values.
    """
    bits = np.unpackbits(np.asarray(data, np.uint8))
    position = 0

    def number(width: int) -> int:
        nonlocal position
        found = bits[position : position + width]
        position += width
        if len(found) < width:
            raise ValueError("brush data that end too early")
        return int.from_bytes(np.packbits(np.concatenate([np.zeros(-width % 8, np.uint8), found])).tobytes(), "big")

    count, width = number(32), number(5) + 1
    if width > 8 or count > 4 * MAX_PIXELS:
        raise ValueError(f"brush data of {count:,} values of {width} bits, expected at most {4 * MAX_PIXELS:,} of 8")
    counters = [number(4) + 1 for _ in range(4)]
    values = np.empty(count, np.uint8)
    done = 0
    while done < count:
        repeated, counter = number(1), number(2)
        end = done + number(counters[counter]) + 1
        if end > count:
            raise ValueError("brush data with too many values")
        if repeated:
            values[done:end] = number(width)
        else:
            chunk = bits[position : position + width * (end - done)]
            position += width * (end - done)
            if len(chunk) < width * (end - done):
                raise ValueError("brush data that end too early")
            values[done:end] = chunk.reshape(-1, width) @ (1 << np.arange(width)[::-1])
        done = end
    return values
