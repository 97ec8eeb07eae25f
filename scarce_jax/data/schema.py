"""What an example is, and what is known of each dataset before it is prepared."""

from __future__ import annotations

import dataclasses

IGNORE = 255
"""Label value of pixels that count nowhere: void in `fine`, unlabelled in `coarse`, outside a warped image."""

LABEL_FIELDS = ("fine", "coarse")
"""Fields of an example that are class-index masks, uint8 [H, W]."""

OPTIONAL = (*LABEL_FIELDS, "tags")
"""Fields that an example may lack: stored masks are 255 then, and tags 0."""

CALLED = {"fine": "fine mask", "coarse": "coarse mask", "tags": "list of tags"}
"""What messages call them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Facts of a prepared dataset; kept in its tfds metadata and, for known datasets, in `KNOWN`.

    Attributes:
      name: tfds name, with the builder config after a slash where there is one ("voc/animals").
      classes: class names; the index is the value in `fine`, `coarse` and `tags`. At most 255.
      palette: one RGB triple (0..255) per class.
      background: index of the background class, whose tag is always 0, or None.
      splits: split name -> number of examples.
      native_ids: for each class the id it has in the dataset's own mask files, None where equal to the index.
      lacking: split -> field of `OPTIONAL` -> number of examples that do not have it, where that is not 0.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    background: int | None
    splits: dict[str, int]
    native_ids: tuple[int, ...] | None = None
    lacking: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def having(self, split: str, field: str) -> int:
        """How many examples of a split have a field; 0 for a split that is not there."""
        return self.splits.get(split, 0) - self.lacking.get(split, {}).get(field, 0)


CAMVID = DatasetInfo(
    name="camvid",
    classes=(
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    background=None,
    splits={"train": 367, "val": 101, "test": 233},
)  # fmt: skip

CITYSCAPES = DatasetInfo(
    name="cityscapes",
    classes=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
        (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    background=None,
    splits={"train": 2975, "val": 500, "test": 1525},
    native_ids=(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
)  # fmt: skip

SCENES = DatasetInfo(
    name="scenes",
    classes=(
        "background", "striped fish", "spotted fish", "checked fish", "starfish", "octopus", "crab", "jellyfish",
        "eel", "kelp", "coral", "shell",
    ),
    palette=(
        (38, 50, 72), (230, 50, 50), (255, 145, 30), (255, 225, 60), (245, 110, 190), (150, 70, 220),
        (140, 80, 40), (90, 215, 245), (30, 95, 235), (60, 165, 60), (255, 180, 160), (240, 245, 235),
    ),
    background=0,
    splits={"train": 300, "val": 100, "test": 100},
)  # fmt: skip

KNOWN: dict[str, DatasetInfo] = {info.name: info for info in (CAMVID, CITYSCAPES, SCENES)}
"""Datasets with a fixed list of classes, so that a dry run needs no data."""
