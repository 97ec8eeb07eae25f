"""A result of a run on every image of a split: its confusion matrix, and pictures of some images.

Masks that a stage inferred for training images are shown too, if a result measures them (`Eval.inferred`).
"""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from scarce_jax import memory
from scarce_jax.data.figures import summarise
from scarce_jax.data.images import resize_image, resize_label
from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import RecordField, Rows, pad
from scarce_jax.evaluation.confusion import confusion
from scarce_jax.evaluation.native import native_canvas
from scarce_jax.evaluation.predict import Prediction, Predictor
from scarce_jax.recipe import Artifact, Confident, Eval, Read
from scarce_jax.run_folder import open_result, open_run
from scarce_jax.runs import load
from scarce_jax.training.session import Session

LONGEST = 640
"""Pixels of the longer side of a picture, so that twelve pictures take a few MB."""

MAP_SIDE = 160
"""Pixels of the longer side of a map, which is smooth."""

_HEAT = np.stack([np.full(256, 255), np.arange(256), np.zeros(256, int)], -1).astype(np.uint8)
_OPACITY = (np.arange(256) * 0.85).astype(np.uint8).tobytes()

_count = jax.jit(confusion, static_argnums=2)


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
        self.show(run, result, k, _layer("prediction", labels, self.key[3]), miou=miou)

    def show_trusted(
        self, run: int, result: str, k: int, labels: np.ndarray, confidence: np.ndarray, truth: np.ndarray
    ) -> None:
        """Adds a confidence, and a mask that is void where the confidence is low; all uint8 [H, W] at native size."""
        self.show(run, result, k, _confidence_layer(confidence))
        kept = (labels != IGNORE)[truth != IGNORE]
        right = (labels == truth)[truth != IGNORE][kept]
        note = f"{kept.mean():.0%} of the pixels" + (f", {right.mean():.0%} of these right" if right.size else "")
        self.show(run, result, k, _layer("prediction", labels, self.key[3]), note=note)

    def content(self) -> dict[str, Any]:
        """The gallery in the format of the page."""
        described = dict(zip(("dataset", "split", "classes", "palette"), self.key, strict=False))
        return {**described, "runs": self.runs, "pictures": self.pictures}


def measure(
    run_dir: pathlib.Path,
    number: int,
    galleries: list[Gallery],
    *,
    images: int,
    data_dir: str | os.PathLike | None,
    result: str | None,
    split: str | None,
    batch: int | None,
) -> dict[str, Any]:
    """Predicts a result of a run over a split, and adds its pictures to the gallery of that split.

    Args:
      number: number of the run in the page.
      result: name of the result; None for the main one.
      galleries: galleries of earlier runs; a new one is appended if none has the same images.
      images: number of images in a new gallery.
      batch: images per device; None for the config's.

    Returns:
      {"result", "split", "images"} and the figures of `data.figures.summarise` at native size.

    Raises:
      InputError: there is no such result, it is not finished or predicts no masks, the dataset is not prepared, a
        checkpoint is damaged, or a batch does not fit in the memory of a device.
    """
    session, name, evaluation = open_result(run_dir, result, split=split, data_dir=data_dir, batch=batch)
    rows, maps = session.inputs.open(evaluation.source), {}
    predictor = load(run_dir, name, batch=batch)
    advice = memory.advice(
        what=f"predicting with result {name}",
        batch=predictor.batch,
        size=predictor.size,
        lower="--batch",
        resumes=False,
    )
    with advice:
        predicted = _predictions(predictor, rows, range(len(rows)))
        masks = ((k, truth, prediction.labels) for k, truth, prediction in predicted)
        total, mious = score(masks, len(rows), session.classes)
        gallery = _gallery(galleries, evaluation, rows, mious, session.classes, predictor.palette, images)
        shown = list(_predictions(predictor, rows, gallery.chosen))
        if evaluation.maps is not None:
            maps = dict(_maps(session, evaluation, rows, gallery.chosen))
    for k, truth, prediction in sorted(shown, key=lambda item: item[0]):
        coarse = rows.example(k).get("coarse") if predictor.needs_coarse else None
        layers = gallery.picture(k)["layers"]
        if coarse is not None and not any(layer["kind"] == "coarse" for layer in layers):
            layers.append(_layer("coarse", coarse, predictor.palette))
        if evaluation.threshold is None:
            gallery.show_mask(number, name, k, prediction.labels, mious[k])
        else:
            gallery.show_trusted(number, name, k, prediction.labels, prediction.confidence, truth)
    for k, values in maps.items():
        picture = gallery.picture(k)
        for label in picture["layers"][0]["classes"]:
            if values[..., label].any():
                drawn = _map_layer(values[..., label], label, (picture["height"], picture["width"]))
                picture["layers"].append({**drawn, "run": number, "result": name})
    figures = summarise(total, session.classes)
    return {"result": name, "split": evaluation.source.split, "images": len(rows), **figures}


def score(
    predictions: Iterable[tuple[int, np.ndarray, np.ndarray]], count: int, names: Sequence[str]
) -> tuple[np.ndarray, list[float | None]]:
    """Measures masks of `count` images.

    Args:
      predictions: (number of the image, true mask, predicted mask), both uint8 [H, W], in any order.
      count: number of images.
      names: of the classes.

    Returns:
      The confusion matrix [K, K + 1], and the mIoU of every image by its number.
    """
    classes = len(names)
    total, mious = np.zeros((classes, classes + 1), np.int64), [None] * count
    for k, truth, labels in predictions:
        # On canvases, images of many sizes compile few programs.
        canvas = native_canvas(*truth.shape)
        counts = np.asarray(_count(pad(labels, canvas, IGNORE), pad(truth, canvas, IGNORE), classes), np.int64)
        mious[k] = summarise(counts, names)["miou"]
        total += counts
    return total, mious


def show_inferred(
    run_dir: pathlib.Path, number: int, galleries: list[Gallery], *, images: int, data_dir: str | os.PathLike | None
) -> None:
    """Adds masks of training images that finished stages inferred and results measure, such as label maps.

    Masks that are read by their confidence (`recipe.Confident`) are shown without and with the threshold.

    Args:
      number, galleries, images: as for `measure`.

    Raises:
      InputError: the dataset is not prepared, or records are damaged.
    """
    session, info, _ = open_run(run_dir, data_dir)
    for name, evaluation in session.recipe.results.items():
        inferred = evaluation.inferred
        artifact = inferred.artifact if isinstance(inferred, Read) else inferred
        if not images or artifact is None or not (run_dir / artifact.stage / "DONE").exists():
            continue
        rows = session.inputs.open(evaluation.source, evaluation.hidden_truth)
        field = session.inputs.field(artifact)
        _, mious = score(((k, *_native(rows, field, k)) for k in range(len(rows))), len(rows), session.classes)
        gallery = _gallery(galleries, evaluation, rows, mious, info.classes, info.palette, images)
        read = inferred.read if isinstance(inferred, Read) and isinstance(inferred.read, Confident) else None
        for k in gallery.chosen:
            truth, labels = _native(rows, field, k)
            gallery.show_mask(number, name if read is None else f"{name}, all pixels", k, labels, mious[k])
            if read is not None:
                trusted = _native(rows, session.inputs.field(inferred), k)[1]
                confidence = session.inputs.field(Artifact(stage=artifact.stage, name=read.confidence))
                gallery.show_trusted(number, name, k, trusted, _native(rows, confidence, k)[1], truth)


def _native(rows: Rows, field: RecordField, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The true mask and an inferred array of a row, both uint8 [H, W] at the size of the image."""
    example = rows.example(k)
    return example["label"], resize_label(field.get(example), example["label"].shape)


def _gallery(
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


def _predictions(
    predictor: Predictor, rows: Rows, chosen: Sequence[int]
) -> Iterator[tuple[int, np.ndarray, Prediction]]:
    """(row number, true mask uint8 [H, W], prediction) of the `chosen` rows, both at native size."""

    def load(position: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        example = rows.example(chosen[position])
        return predictor.row(example["image"], example.get("coarse")), example["label"]

    for position, truth, prediction in predictor.stream(load, len(chosen), os.cpu_count() or 1):
        yield chosen[position], truth, prediction


def _maps(session: Session, evaluation: Eval, rows: Rows, chosen: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(row number, maps float32 [h, w, K] of the result) for the `chosen` rows."""
    nets, consts = session.nets(evaluation), session.consts(evaluation)

    @jax.jit
    def run(nets: Any, row: dict, consts: Any) -> jax.Array:
        row = evaluation.source.transform(row, jax.random.key(0), consts)
        return evaluation.maps(nets, jax.tree.map(lambda x: x[None], row), consts)[0]

    for k in chosen:
        image = rows.example(k)["image"]
        size = rows.size or image.shape[:2]
        yield k, np.asarray(run(nets, Rows.sized({"image": image}, size, size), consts), np.float32)


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
        "layers": [_layer("truth", example["label"], palette)],
    }


def _layer(kind: str, mask: np.ndarray, palette: Sequence) -> dict[str, Any]:
    """A mask in the colours of its classes, transparent where void, with the list of its classes."""
    shown = resize_label(mask, _fitted(*mask.shape))
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    image = Image.fromarray(shown)
    image.putpalette(colours.tobytes())
    classes = [int(k) for k in np.unique(mask) if k != IGNORE]
    return {"kind": kind, "classes": classes, "mask": _data_uri(image, "png", transparency=IGNORE, optimize=True)}


def _confidence_layer(confidence: np.ndarray) -> dict[str, Any]:
    """A confidence, uint8 [H, W], as a picture from black (0) to white (255)."""
    shown = resize_image(confidence, _fitted(*confidence.shape))
    return {"kind": "confidence", "classes": [], "mask": _data_uri(Image.fromarray(shown), "png", optimize=True)}


def _map_layer(values: np.ndarray, label: int, size: tuple[int, int]) -> dict[str, Any]:
    """Values float [h, w] in 0..1 as a picture with the proportions of `size`: red to yellow, high values opaque."""
    height, width = _fitted(*size, MAP_SIDE)
    grown = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    image = Image.fromarray((np.clip(np.asarray(grown), 0, 1) * 255).astype(np.uint8))
    image.putpalette(_HEAT.tobytes())
    return {"kind": "map", "classes": [label], "mask": _data_uri(image, "png", transparency=_OPACITY, optimize=True)}


def _fitted(height: int, width: int, longest: int = LONGEST) -> tuple[int, int]:
    """The size scaled down so that its longer side has at most `longest` pixels."""
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
