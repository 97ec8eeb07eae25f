"""Facts of the datasets with fixed classes."""

from __future__ import annotations

import dataclasses

import numpy as np

from scarce_jax.data.schema import DatasetInfo


def default_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Returns `count` (up to 255) different RGB colours: those of PASCAL VOC after black.

    The bits of a colour's number, from the lowest on, are the high bits of red, green and blue in turn.
    """
    bits = [(np.arange(1, count + 1)[:, None] >> (3 * k + np.arange(3)) & 1) << (7 - k) for k in range(3)]
    return tuple(tuple(int(x) for x in colour) for colour in sum(bits))


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
    void_ids=(11,),
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
    void_ids=(0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30),
)  # fmt: skip
"""`native_ids` and `void_ids` are those of labelIds (`labels.py` of the authors' scripts)."""

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

COLOURED_SCENES = dataclasses.replace(SCENES, name="scenes/coloured", splits={"train": 400, "val": 200, "test": 200})

VOC = DatasetInfo(
    name="voc",
    classes=(
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ),
    palette=((0, 0, 0), *default_palette(20)),
    background=0,
    splits={"train": 10582, "val": 1449},
)  # fmt: skip
"""The size of `train` is that with SBD; without it `train` has 1464 images."""

ANIMAL_IDS = (0, 8, 10, 12, 13, 15, 17)
"""The ids in VOC of the classes of `voc/animals`."""

VOC_ANIMALS = DatasetInfo(
    name="voc/animals",
    classes=tuple(VOC.classes[k] for k in ANIMAL_IDS),
    palette=tuple(VOC.palette[k] for k in ANIMAL_IDS),
    background=0,
    splits={},
    native_ids=ANIMAL_IDS,
    void_ids=tuple(k for k in range(len(VOC.classes)) if k not in ANIMAL_IDS),
)

_NOT_IN_VOC = {
    8: "truck", 10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench",
    22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe", 27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie",
    33: "suitcase", 34: "frisbee", 35: "skis", 36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat",
    40: "baseball glove", 41: "skateboard", 42: "surfboard", 43: "tennis racket", 46: "wine glass", 47: "cup",
    48: "fork", 49: "knife", 50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange",
    56: "broccoli", 57: "carrot", 58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 65: "bed", 70: "toilet",
    73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard", 77: "cell phone", 78: "microwave", 79: "oven",
    80: "toaster", 81: "sink", 82: "refrigerator", 84: "book", 85: "clock", 86: "vase", 87: "scissors",
    88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}  # fmt: skip

COCO_WITH_VOC = DatasetInfo(
    name="coco/with_voc",
    classes=(*VOC.classes, *_NOT_IN_VOC.values()),
    palette=((0, 0, 0), *default_palette(80)),
    background=0,
    splits={},
)

COCO = DatasetInfo(
    name="coco",
    classes=("background", *_NOT_IN_VOC.values()),
    # The same colours as in `coco/with_voc`.
    palette=((0, 0, 0), *COCO_WITH_VOC.palette[len(VOC.classes) :]),
    background=0,
    splits={},
    native_ids=(0, *_NOT_IN_VOC),
)
"""The 60 categories of COCO that VOC does not have; `native_ids` are COCO's category ids."""

LID = DatasetInfo(
    name="lid",
    classes=("background", *("person" if k == 124 else f"class {k}" for k in range(1, 201))),
    palette=((0, 0, 0), *default_palette(200)),
    background=0,
    splits={"train": 456567, "val": 5000, "test": 10000},
)
"""Names of classes are read from the source; "person", which the three-step paper leaves out, has one here too.

Published lists disagree on which of the ids 28 and 29 is "bow", and which "bow tie"."""

KNOWN: dict[str, DatasetInfo] = {
    info.name: info
    for info in (CAMVID, CITYSCAPES, SCENES, COLOURED_SCENES, VOC, VOC_ANIMALS, COCO, COCO_WITH_VOC, LID)
}
"""Facts by dataset name; a dry run of these datasets needs no data."""
