"""A result of a run on every image of a split: its confusion matrix, and pictures of some images.

Masks that a stage inferred for training images are shown too, if a result measures them (`Eval.inferred`), and the maps
that a recipe has (`Recipe.maps`) of all images that are shown.
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
from scarce_jax.data.pictures import HEAT
from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import RecordField, Rows, pad
from scarce_jax.evaluation.confusion import confusion
from scarce_jax.evaluation.native import native_canvas
from scarce_jax.evaluation.predict import Prediction, Predictor
from scarce_jax.recipe import Artifact, Confident, Eval, Read, reads
from scarce_jax.run_folder import open_result, open_run
from scarce_jax.runs import load
from scarce_jax.training.folder import read_done
from scarce_jax.training.session import Session

LONGEST = 640
"""Pixels of the longer side of a picture, so that twelve pictures take a few MB."""

MAP_SIDE = 160
"""Pixels of the longer side of a map, which is smooth."""

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
    rows = session.inputs.open(evaluation.source)
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
    for k, truth, prediction in sorted(shown, key=lambda item: item[0]):
        coarse = rows.example(k).get("coarse") if predictor.needs_coarse else None
        layers = gallery.picture(k)["layers"]
        if coarse is not None and not any(layer["kind"] == "coarse" for layer in layers):
            layers.append(_layer("coarse", coarse, predictor.palette))
        if evaluation.threshold is None:
            gallery.show_mask(number, name, k, prediction.labels, mious[k])
        else:
            gallery.show_trusted(number, name, k, prediction.labels, prediction.confidence, truth)
    show_maps(session, number, gallery, rows)
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
    shown: dict[tuple, tuple[Gallery, Rows]] = {}
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
        shown[gallery.key] = gallery, rows
    for gallery, rows in shown.values():
        show_maps(session, number, gallery, rows)


def show_maps(session: Session, number: int, gallery: Gallery, rows: Rows) -> None:
    """Adds the maps of a run to the pictures of a gallery: of classes, those that one of the picture's masks shows.

    Args:
      number: number of the run in the page.
      rows: the images of the gallery.

    Raises:
      InputError: a checkpoint is damaged, or an image cannot be read.
    """
    for name, maps in session.recipe.maps.items():
        if any(read_done(session.run_dir, artifact.stage) is None for artifact in reads(maps)):
            continue
        make = load(session.run_dir, name)
        for k in gallery.chosen:
            picture = gallery.picture(k)
            classes = {label for layer in picture["layers"] for label in layer["classes"]}
            values = make.maps(rows.example(k)["image"])
            for m, label in enumerate(maps.names):
                of_class = gallery.key[2].index(label) if label in gallery.key[2] else None
                if values[..., m].any() and (of_class is None or of_class in classes):
                    layer = _map_layer(values[..., m], (picture["height"], picture["width"]))
                    classes_shown = [] if of_class is None else [of_class]
                    gallery.show(number, name, k, layer, classes=classes_shown, label=label)


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


def _map_layer(values: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
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
