"""MS COCO without VOC's categories, 61 classes; and `coco/with_voc`, which adds the images and classes of VOC, 81."""

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
"""Releases, in order of preference; only one is read, because their splits share images."""

PLACES = (".", "coco")
"""Subfolders of a source that may hold COCO's folders."""

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
    """The images that have annotations, all of them of the 60 categories that VOC does not have.

    Source: Xiao et al., "Transferable Semi-supervised Semantic Segmentation", section "Experiments". Its split-set 4
    has 16,241 such images; the paper does not state the release and splits. Ids are those of the files, such as
    "000000391895".

    Tags are the annotated categories, including those of crowds. Masks are drawn from the annotations, see
    `coco_masks`.

    Reading an annotation file (450 MB for train2017) takes about six times its size in memory. Afterwards only the
    annotations of these images are kept, and images and masks are processed one by one.
    """

    VERSION = tfds.core.Version("1.0.0")
    VARIES = True
    HOLDS = LAYOUT
    FACTS = COCO
    tags_from = "the annotated categories"

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        files = find_coco(self.source, self.HOLDS)
        return {split: coco_examples(*paths, COCO) for split, paths in files.items()}


class CocoWithVoc(Coco):
    """The dataset of split-set 4: strong images of COCO and weak images of VOC.

    `train` is `train` of the dataset `voc`, followed by that of `coco`; `val` and `test` are `voc`'s. The classes
    are VOC's 21, followed by the 60 of COCO. With `strong_categories` "split-set-4" the masks of VOC are not used.
    """

    name = "coco"
    FACTS = COCO_WITH_VOC
    HOLDS = f"both VOC: {VOC_LAYOUT}; and COCO: {LAYOUT}"

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        voc, coco = find_voc(self.source, self.HOLDS), find_coco(self.source, self.HOLDS)
        ids = voc.splits()
        for name, splits in (("VOC", ids), ("COCO", coco)):
            if "train" not in splits:
                raise InputError(f"{self.source}: has no train images of {name}; expected {self.HOLDS}")
        self.tags_from = f"VOC: {voc.tags_from}; COCO: {Coco.tags_from}"
        examples = {split: voc.examples(split, names, COCO_WITH_VOC) for split, names in ids.items()}
        return examples | {"train": itertools.chain(examples["train"], coco_examples(*coco["train"], COCO_WITH_VOC))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Image:
    """File name and size (H, W) of an image, and (category name, annotation) of each of its objects."""

    file: str
    size: tuple[int, int]
    annotations: list[tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=list)


def find_coco(source: pathlib.Path, expected: str) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """Finds the files of one release: split -> (annotation file, folder of images), for the splits that exist.

    Args:
      source: the source folder.
      expected: the expected content of the source, for messages.

    Raises:
      InputError: there is no annotation file, or no folder of images for one.
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
    """Yields the examples of an annotation file that show no category of VOC, in the order of the file.

    Args:
      path: annotation file.
      images: folder of the images.
      facts: facts of the dataset to build, which has all other categories.

    Raises:
      InputError: the file is not an annotation file of COCO, an image is missing, damaged or of another size, or an
        annotation cannot be drawn.
    """
    index = {name: k for k, name in enumerate(facts.classes)}
    records = _read_instances(path)
    for image in records:
        if not (images / image.file).is_file():
            raise InputError(f"{images / image.file}: missing, an image of {path}; extract {images.name} completely")
    for image in records:
        name = pathlib.PurePosixPath(image.file).stem
        with naming("image", name):
            data, size = read_encoded(images / image.file)
        if size != image.size:
            raise InputError(
                f"{images / image.file}: the image is {wxh(size)} pixels, expected {wxh(image.size)}, as in {path}; "
                f"extract both from the same release"
            )
        tags = np.zeros(len(facts.classes), np.uint8)
        tags[[index[category] for category, _ in image.annotations]] = 1
        yield Example(id=name, image=data, fine=_draw(image, index, path), tags=tags)


def _draw(image: _Image, index: Mapping[str, int], path: pathlib.Path) -> np.ndarray:
    instances = []
    for name, annotation in image.annotations:
        try:
            region = fill(annotation["segmentation"], image.size)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: annotation {annotation.get('id')} of {image.file}: {type(error).__name__}: {error}; expected "
                "polygons or run lengths in segmentation; is the file damaged?"
            ) from error
        instances.append(Instance(label=index[name], region=region, crowd=bool(annotation.get("iscrowd"))))
    return draw(instances, image.size)


def _read_instances(path: pathlib.Path) -> list[_Image]:
    """Reads the images that have annotations, all of them of the 60 categories."""
    try:
        content = json.loads(path.read_bytes())
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        unknown = set(names.values()) - {*COCO.classes[1:], *IN_VOC}
        if unknown:
            raise ValueError(f"categories {sorted(unknown)[:3]} are none of COCO's 80")
        every = {entry["image_id"] for entry in content["annotations"]}
        dropped = {entry["image_id"] for entry in content["annotations"] if names[entry["category_id"]] in IN_VOC}
        records = {
            entry["id"]: _Image(file=entry["file_name"], size=(entry["height"], entry["width"]))
            for entry in content["images"]
            if entry["id"] in every and entry["id"] not in dropped
        }
        for entry in content["annotations"]:
            if entry["image_id"] in records:
                records[entry["image_id"]].annotations.append((names[entry["category_id"]], entry))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: {type(error).__name__}: {error}; expected COCO's instances, with images, annotations and "
            "categories; fetch it again"
        ) from error
    return list(records.values())
