"""Chooses a method for the labels of a folder, and writes a config that fits its photographs and the device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from scarce_jax.data.builders.formats import Layout
from scarce_jax.data.builders.formats.layout import Item
from scarce_jax.errors import InputError, plural, some
from scarce_jax.proposal import templates

Size = tuple[int, int]

STRIDE = 16
"""Sides are multiples of it."""
COARSEST = 32
"""The same for the nets of `decoupled`, of which each group of layers halves the image."""
SMALLEST = 64
MIXED = 1.7
"""Photographs whose aspect ratios differ by more than this factor are padded, not stretched."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """What a config spends on a kind of device.

    Attributes:
      side: of a square with the area of the images that are trained on.
      crop: share of an image's sides that a crop has.
    """

    side: int
    crop: float
    batch: int


DEVICES = {"cpu": Device(side=192, crop=2 / 3, batch=4), "gpu": Device(side=480, crop=0.8, batch=8)}
"""The GPU's are those of the configs *_folder.py, the CPU's those of supervised_scenes.py and detailer_scenes.py."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A method, and the settings of its config.

    Attributes:
      method: None where the shipped config `shipped` does it as it is.
      why: the labels that speak for the method, in words.
      measured: whether the split val has fine masks.
    """

    method: str | None
    why: str
    shipped: str = ""
    device: Literal["cpu", "gpu"]
    size: Size
    crop: Size
    pad: bool
    batch: int
    measured: bool


def plan(layout: Layout, sizes: Mapping[Size, int], device: Literal["cpu", "gpu"], devices: int = 1) -> Plan:
    """Chooses a method by the kinds of labels, and sizes by those of the photographs.

    Args:
      sizes: (height, width) -> number of photographs.
      devices: the batch is a multiple of it.

    Raises:
      InputError: there is no split train, or no method learns from its labels alone.
    """
    if "train" not in layout.splits:
        raise InputError(
            f"found the split {some(layout.splits)}, expected train, to learn from; rename the folder of the images to "
            "learn from to train"
        )
    method, shipped, why = _method(layout.splits["train"], layout.classes.background is not None)
    spent = DEVICES[device]
    # Half of a batch of `auxiliary` is labelled, and each half is divided over the devices.
    parts = 2 * devices if method == "auxiliary" else devices
    size, pad = _size(sizes, spent.side)
    return Plan(
        method=method,
        why=why,
        shipped=shipped,
        device=device,
        size=size,
        crop=_sides(spent.crop**2 * math.prod(size), _aspect(size), COARSEST if method == "decoupled" else STRIDE),
        pad=pad,
        batch=parts * math.ceil(spent.batch / parts),
        measured=any(
            item.fine is not None and (item.coarse is not None or method != "detailer")
            for item in layout.splits.get("val", ())
        ),
    )


def _method(train: Sequence[Item], background: bool) -> tuple[str | None, str, str]:
    """The method, or None and a shipped config; and why.

    Args:
      train: the images that are trained on.
      background: whether a class is the background.
    """
    fine = sum(item.fine is not None for item in train)
    both = sum(item.fine is not None and item.coarse is not None for item in train)
    tagged = sum(item.tags is not None for item in train if item.fine is None)
    if not fine and tagged and not background:
        raise InputError(
            "no photograph for training has a mask, and the method that learns from tags alone needs a background "
            "class, which no tag names; found none; add it to the classes as background"
        )
    if not fine and tagged:
        return None, "three_step_scenes", f"{plural(tagged, 'photograph')} with tags, and no mask"
    if not fine and any(item.coarse is not None for item in train):
        raise InputError(
            "no photograph for training has a fine mask, and no method learns from coarse masks alone; draw fine masks "
            "of some, or rename the folder coarse to masks: the method supervised learns from their labelled pixels"
        )
    if not fine:
        raise InputError(
            "no photograph of the split train has a mask; expected masks of at least a few; draw some, or move "
            "photographs that have masks there"
        )
    labelled = f"{fine:,} of {plural(len(train), 'training image')} with a fine mask"
    if both:
        return "detailer", "", f"{labelled}, {both:,} of them with a coarse mask too"
    if tagged and background:
        return "decoupled", "", f"{labelled}, {tagged:,} others with tags"
    if len(train) - fine >= fine:
        return "auxiliary", "", f"{labelled}, and the others to learn from without"
    return "supervised", "", labelled


def _size(sizes: Mapping[Size, int], side: int) -> tuple[Size, bool]:
    """The size of the images that are trained on: of the median photograph's proportions, and not larger than it."""
    every = sorted((size for size, count in sizes.items() for _ in range(count)), key=_aspect)
    height, width = every[len(every) // 2]
    mixed = _aspect(every[-1]) > MIXED * _aspect(every[0])
    aspect = 1.0 if mixed else width / height
    area = min(side * side, height * width)
    return _sides(area, aspect), mixed


def _aspect(size: Size) -> float:
    return size[1] / size[0]


def _sides(area: float, aspect: float, stride: int = STRIDE) -> Size:
    """(height, width) of about this area, in multiples of the stride that keep the proportions best."""
    height = max(math.sqrt(area / aspect), SMALLEST, SMALLEST / aspect) / stride
    rounded = [(h, max(1, round(h * aspect))) for h in {math.floor(height), math.ceil(height)} - {0}]
    height, width = min(rounded, key=lambda size: abs(math.log(_aspect(size) / aspect)))
    return height * stride, width * stride


def config_text(chosen: Plan, dataset: str, file: str) -> str:
    """A config file of the method, commented where a user would change it.

    Args:
      dataset: name of the dataset.
      file: path of the config file, for its command.
    """
    gpu = chosen.device == "gpu"
    kind = "a GPU" if gpu else "a CPU"
    fields = {
        "method": chosen.method,
        "dataset": dataset,
        "file": file,
        "why": chosen.why,
        "kind": kind,
        "size": chosen.size,
        "fit": '\n    fit="pad",  # They are wide and tall: "stretch" would distort them.' if chosen.pad else "",
        "crop": chosen.crop,
        "batch": chosen.batch,
        "labelled_batch": chosen.batch // 2,
        "scale": (0.5, 2.0) if gpu else (0.6, 1.2),
        "backbone": "ResNetConfig(depth=50)" if gpu else "ResNetConfig(depth=18, width=32)",
        "embedding": "" if gpu else "embedding=128, ",
        "width": 32 if gpu else 16,
        "every": "" if not chosen.measured else f"\n    eval_every={1_000 if gpu else 100},",
        "split": "" if chosen.measured else "\n    eval_split=None,  # No image of val has a fine mask to measure by.",
        "runtime": "" if gpu else "\n    runtime=Runtime(checkpoint_every=100, log_every=20),",
        "import_runtime": "" if gpu else "from scarce_jax.runtime import Runtime\n",
        **templates.STEPS[chosen.device],
    }
    return templates.TEXT[chosen.method].format(**fields)
