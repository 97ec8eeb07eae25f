"""MS COCO without VOC's categories, 61 classes; `coco/with_voc`, 81: those and the images and classes of VOC."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.coco_masks import Instance, draw, fill
from scarce_jax.data.builders.files import Example, naming
from scarce_jax.data.builders.voc import LAYOUT as VOC_LAYOUT
from scarce_jax.data.builders.voc import find_voc
from scarce_jax.data.datasets import COCO, COCO_WITH_VOC
from scarce_jax.data.images import read_encoded, wxh
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.errors import InputError

YEARS = ("2017", "2014")
"""Of the releases, the first one found is taken: their splits share images."""

PLACES = (".", "coco")
"""Where in a source COCO's folders may be."""

SPLITS = ("train", "val")

LAYOUT = (
    "annotations/instances_train2017.json (or _val2017, or both of 2014) and the images in train2017 (val2017, ...), "
    "all in the folder or in coco"
)

IN_VOC = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "boat", "bird", "cat", "dog", "horse",
    "sheep", "cow", "bottle", "chair", "couch", "potted plant", "dining table", "tv",
)  # fmt: skip
"""COCO's names of VOC's 20 categories."""


class Coco(SegmentationBuilder):
    """The images of which every annotation is of one of the 60 categories that VOC has not got.

    Images without any annotation are left out. After Xiao et al., "Transferable Semi-supervised Semantic Segmentation",
    section "Experiments", whose split-set 4 has 16,241 of them; of which release and splits it does not say. An example
    is called as its file, "000000391895".

    Tags are the annotated categories, of crowds too; masks are drawn from the annotations (see `coco_masks`).

    `json.loads` takes an annotation file in whole (450 MB for train2017), about six times its size in memory while it
    is read; then only the annotations of these images are kept, and images and masks are made one by one.
    """

    VERSION = tfds.core.Version("1.0.0")
    VARIES = True
    HOLDS = LAYOUT
    tags_from = "the annotated categories"

    def describe(self) -> DatasetInfo:
        return COCO

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        files = find_coco(self.source, self.HOLDS)
        return {split: coco_examples(*paths, COCO) for split, paths in files.items()}


class CocoWithVoc(Coco):
    """What split-set 4 trains on and measures, in one dataset: strong images of COCO, weak ones of VOC.

    `train` is VOC's, as of the dataset `voc`, and then COCO's `train` as of `coco`; `val` is VOC's. `coco/val` is in
    neither. Classes are VOC's 21 and then the 60; with `strong_categories` "split-set-4" the masks of VOC are not used.
    """

    name = "coco"
    HOLDS = f"both VOC: {VOC_LAYOUT}; and COCO: {LAYOUT}"

    def describe(self) -> DatasetInfo:
        return COCO_WITH_VOC

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        voc, coco = find_voc(self.source, self.HOLDS), find_coco(self.source, self.HOLDS)
        ids = voc.splits()
        for name, splits in (("VOC", ids), ("COCO", coco)):
            if "train" not in splits:
                raise InputError(f"{self.source}: has no train images of {name}; expected {self.HOLDS}")
        self.tags_from = f"VOC: {voc.tags_from}; COCO: {Coco.tags_from}"
        examples = {split: voc.examples(names, COCO_WITH_VOC) for split, names in ids.items()}
        return examples | {"train": itertools.chain(examples["train"], coco_examples(*coco["train"], COCO_WITH_VOC))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Image:
    """An image's file name, its size (H, W), and (category name, annotation) of all that it shows."""

    file: str
    size: tuple[int, int]
    annotations: list[tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=list)


def find_coco(source: pathlib.Path, expected: str) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """Split -> (annotation file, folder of images) of one release, for the splits that are there.

    Args:
      expected: what the folder should hold, for messages.

    Raises:
      InputError: there is no annotation file, or no folder for one.
    """
    for root, year in itertools.product((source / place for place in PLACES), YEARS):
        files = {split: root / "annotations" / f"instances_{split}{year}.json" for split in SPLITS}
        splits = {split: (path, root / f"{split}{year}") for split, path in files.items() if path.is_file()}
        for path, images in splits.values():
            if not images.is_dir():
                raise InputError(f"{images}: missing, the images of {path}; expected {expected}")
        if splits:
            return splits
    raise InputError(f"{source}: has no annotations/instances_*.json of 2017 or 2014; expected {expected}")


def coco_examples(path: pathlib.Path, images: pathlib.Path, facts: DatasetInfo) -> Iterator[Example]:
    """The examples of an annotation file that show none of VOC's categories, in its order of images.

    Args:
      path: annotations.
      images: folder of the images.
      facts: of the dataset that is made; it has all other categories.

    Raises:
      InputError: the file is no annotations of COCO, an image is missing, damaged or of another size, or an annotation
        cannot be drawn.
    """
    index = {name: k for k, name in enumerate(facts.classes)}
    records = _read_instances(path)
    for one in records:
        if not (images / one.file).is_file():
            raise InputError(f"{images / one.file}: missing, an image of {path}; extract {images.name} whole")
    for one in records:
        name = pathlib.PurePosixPath(one.file).stem
        with naming("image", name):
            data, size = read_encoded(images / one.file)
        if size != one.size:
            raise InputError(
                f"{images / one.file}: the image is {wxh(size)} pixels, {path} says {wxh(one.size)}; both must agree"
            )
        tags = np.zeros(len(facts.classes), np.uint8)
        tags[[index[category] for category, _ in one.annotations]] = 1
        yield Example(id=name, image=data, fine=_draw(one, index, path), tags=tags)


def _draw(image: _Image, index: Mapping[str, int], path: pathlib.Path) -> np.ndarray:
    instances = []
    for name, one in image.annotations:
        try:
            region = fill(one["segmentation"], image.size)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: annotation {one.get('id')} of {image.file}: {type(error).__name__}: {error}; expected "
                "polygons or run lengths in segmentation; is the file damaged?"
            ) from error
        instances.append(Instance(label=index[name], region=region, crowd=bool(one.get("iscrowd"))))
    return draw(instances, image.size)


def _read_instances(path: pathlib.Path) -> list[_Image]:
    """The images all of whose annotations are of the 60 categories, at least one."""
    try:
        content = json.loads(path.read_bytes())
        names = {one["id"]: one["name"] for one in content["categories"]}
        unknown = set(names.values()) - {*COCO.classes[1:], *IN_VOC}
        if unknown:
            raise ValueError(f"categories {sorted(unknown)[:3]} are none of COCO's 80")
        every = {one["image_id"] for one in content["annotations"]}
        dropped = {one["image_id"] for one in content["annotations"] if names[one["category_id"]] in IN_VOC}
        records = {
            one["id"]: _Image(file=one["file_name"], size=(one["height"], one["width"]))
            for one in content["images"]
            if one["id"] in every and one["id"] not in dropped
        }
        for one in content["annotations"]:
            if one["image_id"] in records:
                records[one["image_id"]].annotations.append((names[one["category_id"]], one))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: {type(error).__name__}: {error}; expected COCO's instances, with images, annotations and "
            "categories; fetch it again"
        ) from error
    return list(records.values())
