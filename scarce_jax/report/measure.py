"""A result of a run on every image of a split: its confusion matrix, and pictures of some images.

Masks that a stage inferred for training images are shown too, if a result measures them (`Eval.inferred`), and the maps
that a recipe has (`Recipe.maps`) of all images that are shown.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from scarce_jax import memory
from scarce_jax.data.figures import summarise
from scarce_jax.data.images import resize_label
from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import RecordField, Rows, pad
from scarce_jax.evaluation.confusion import confusion
from scarce_jax.evaluation.native import native_canvas
from scarce_jax.evaluation.predict import Prediction, Predictor
from scarce_jax.recipe import Artifact, Confident, MostConfident, Read, reads
from scarce_jax.report.gallery import Gallery, gallery_of, map_layer, mask_layer
from scarce_jax.run_folder import open_result, open_run
from scarce_jax.runs import load
from scarce_jax.training.folder import read_done
from scarce_jax.training.session import Session

_count = jax.jit(confusion, static_argnums=2)


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
        gallery = gallery_of(galleries, evaluation, rows, mious, session.classes, predictor.palette, images)
        shown = list(_predictions(predictor, rows, gallery.chosen))
        has_maps = number in gallery.runs  # An earlier call, for another result of the run, has added them.
        for k, truth, prediction in sorted(shown, key=lambda item: item[0]):
            coarse = rows.example(k).get("coarse") if predictor.needs_coarse else None
            layers = gallery.picture(k)["layers"]
            if coarse is not None and not any(layer["kind"] == "coarse" for layer in layers):
                layers.append(mask_layer("coarse", coarse, predictor.palette))
            if evaluation.threshold is None:
                gallery.show_mask(number, name, k, prediction.labels, mious[k])
            else:
                gallery.show_trusted(number, name, k, prediction.labels, prediction.confidence, truth)
        if not has_maps:
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

    Masks that are read by their confidence (`recipe.Confident`, `recipe.MostConfident`) are shown whole and as read.

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
        gallery = gallery_of(galleries, evaluation, rows, mious, info.classes, info.palette, images)
        read = inferred.read if isinstance(inferred, Read) else None
        selected = isinstance(read, Confident | MostConfident)
        for k in gallery.chosen:
            truth, labels = _native(rows, field, k)
            gallery.show_mask(number, f"{name}, all pixels" if selected else name, k, labels, mious[k])
            if selected:
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
                    layer = map_layer(values[..., m], (picture["height"], picture["width"]))
                    classes_shown = [] if of_class is None else [of_class]
                    gallery.show(number, name, k, layer, classes=classes_shown, label=label)


def _native(rows: Rows, field: RecordField, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The true mask and an inferred array of a row, both uint8 [H, W] at the size of the image."""
    example = rows.example(k)
    return example["label"], resize_label(field.get(example), example["label"].shape)


def _predictions(
    predictor: Predictor, rows: Rows, chosen: Sequence[int]
) -> Iterator[tuple[int, np.ndarray, Prediction]]:
    """(row number, true mask uint8 [H, W], prediction) of the `chosen` rows, both at native size."""

    def load(position: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        example = rows.example(chosen[position])
        return predictor.row(example["image"], example.get("coarse")), example["label"]

    for position, truth, prediction in predictor.stream(load, len(chosen), os.cpu_count() or 1):
        yield chosen[position], truth, prediction
