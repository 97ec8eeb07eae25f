"""The images of a split that a report shows, with a layer for each mask, confidence and map of a run."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from scarce_jax.data.images import resize_image, resize_label
from scarce_jax.data.pictures import HEAT
from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import Rows
from scarce_jax.recipe import Eval

LONGEST = 640
"""Pixels of the longer side of a picture, so that twelve pictures take a few MB."""

MAP_SIDE = 160
"""Pixels of the longer side of a map, which is smooth."""

_OPACITY = (np.arange(256) * 0.85).astype(np.uint8).tobytes()


@dataclasses.dataclass
class Gallery:
    """Images of one split, with the masks of every run that is measured on it.

    The first of these runs decides which images: its best, its worst, and others evenly between by the mIoU of a single
    image.

    Attributes:
      key: dataset, split, class names, colours and image ids; runs with equal keys share a gallery.
      chosen: row numbers of the images, best first.
      pictures: id, image and layers of each, in the format of the page.
      runs: numbers of the runs.
    """

    key: tuple
    chosen: list[int]
    pictures: list[dict[str, Any]]
    runs: list[int] = dataclasses.field(default_factory=list)

    def picture(self, k: int) -> dict[str, Any]:
        """The picture of row k, which must be in `chosen`."""
        return self.pictures[self.chosen.index(k)]

    def show(self, run: int, result: str, k: int, layer: Mapping[str, Any], **facts: Any) -> None:
        """Adds a layer of a run's result to the picture of row k."""
        if run not in self.runs:
            self.runs.append(run)
        self.picture(k)["layers"].append({**layer, "run": run, "result": result, **facts})

    def show_mask(self, run: int, result: str, k: int, labels: np.ndarray, miou: float | None) -> None:
        """Adds a run's mask of row k, uint8 [H, W] at native size, with the mIoU of this image."""
        self.show(run, result, k, mask_layer("prediction", labels, self.key[3]), miou=miou)

    def show_trusted(
        self, run: int, result: str, k: int, labels: np.ndarray, confidence: np.ndarray, truth: np.ndarray
    ) -> None:
        """Adds a confidence, and a mask that is void where the confidence is low; all uint8 [H, W] at native size."""
        self.show(run, result, k, _confidence_layer(confidence))
        kept = (labels != IGNORE)[truth != IGNORE]
        right = (labels == truth)[truth != IGNORE][kept]
        note = f"{kept.mean():.0%} of the pixels" + (f", {right.mean():.0%} of these right" if right.size else "")
        self.show(run, result, k, mask_layer("prediction", labels, self.key[3]), note=note)

    def content(self) -> dict[str, Any]:
        """The gallery in the format of the page."""
        described = dict(zip(("dataset", "split", "classes", "palette"), self.key, strict=False))
        return {**described, "runs": self.runs, "pictures": self.pictures}


def gallery_of(
    galleries: list[Gallery],
    evaluation: Eval,
    rows: Rows,
    mious: Sequence[float | None],
    classes: tuple[str, ...],
    palette: tuple[tuple[int, int, int], ...],
    images: int,
) -> Gallery:
    """The gallery of the images of `rows`; a new one if there is none."""
    key = (evaluation.source.dataset, evaluation.source.split, classes, palette, rows.ids)
    gallery = next((gallery for gallery in galleries if gallery.key == key), None)
    if gallery is None:
        chosen = choose(mious, images)
        gallery = Gallery(key, chosen, [_picture(rows, k, mious, palette) for k in chosen])
        galleries.append(gallery)
    return gallery


def choose(mious: Sequence[float | None], images: int) -> list[int]:
    """Indices of the best, the worst and others evenly between by rank, best first; skips images without an mIoU."""
    ranked = sorted((k for k, miou in enumerate(mious) if miou is not None), key=lambda k: -mious[k])
    if images >= len(ranked):
        return ranked
    return [ranked[round(position)] for position in np.linspace(0, len(ranked) - 1, images)]


def _picture(rows: Rows, k: int, mious: Sequence[float | None], palette: Sequence) -> dict[str, Any]:
    """An image of the split with its true mask, in the format of the page."""
    example = rows.example(k)
    image = resize_image(example["image"], _fitted(*example["image"].shape[:2]))
    known = [miou for miou in mious if miou is not None]
    return {
        "id": example["id"],
        "rank": 1 + sum(miou > mious[k] for miou in known),
        "of": len(known),
        "width": image.shape[1],
        "height": image.shape[0],
        "image": _data_uri(Image.fromarray(image), "jpeg", quality=85),
        "layers": [mask_layer("truth", example["label"], palette)],
    }


def mask_layer(kind: str, mask: np.ndarray, palette: Sequence) -> dict[str, Any]:
    """A mask in the colours of its classes, and their list; transparent where void, or black as backgrounds are."""
    shown = resize_label(mask, _fitted(*mask.shape))
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    image = Image.fromarray(shown)
    image.putpalette(colours.tobytes())
    opacity = np.where(colours.any(-1), 255, 0).astype(np.uint8).tobytes()
    classes = [int(k) for k in np.unique(mask) if k != IGNORE]
    return {"kind": kind, "classes": classes, "mask": _data_uri(image, "png", transparency=opacity, optimize=True)}


def _confidence_layer(confidence: np.ndarray) -> dict[str, Any]:
    """A confidence, uint8 [H, W], as a picture from black (0) to white (255)."""
    shown = resize_image(confidence, _fitted(*confidence.shape))
    return {"kind": "confidence", "classes": [], "mask": _data_uri(Image.fromarray(shown), "png", optimize=True)}


def map_layer(values: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Values uint8 [H, W] as a picture with the proportions of `size`: red to yellow, high values opaque."""
    image = Image.fromarray(resize_image(values, _fitted(*size, MAP_SIDE)))
    image.putpalette(HEAT.tobytes())
    return {"kind": "map", "mask": _data_uri(image, "png", transparency=_OPACITY, optimize=True)}


def _fitted(height: int, width: int, longest: int = LONGEST) -> tuple[int, int]:
    """The size scaled down so that its longer side has at most `longest` pixels."""
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
