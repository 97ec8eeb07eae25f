"""Predicting image files: finding them, and writing masks and overlays."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from scarce_jax.data.files import SUFFIXES
from scarce_jax.data.images import overlay, read_image, read_mask, write_png
from scarce_jax.errors import InputError
from scarce_jax.evaluation.predict import Predictor


def find_images(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Lists image files: those among `paths`, and those in the folders among them, without subfolders, in order.

    Raises:
      InputError: a path does not exist, or there is no image.
    """
    files: list[pathlib.Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; expected an image, or a folder of images")
        files += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not files:
        where = ", ".join(map(str, paths)) or "paths"
        raise InputError(f"{where}: no image found; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return files


def predict_files(
    predictor: Predictor,
    files: Sequence[pathlib.Path],
    out: pathlib.Path,
    *,
    coarse: pathlib.Path | None,
    confidence: bool,
    native_ids: bool,
) -> None:
    """Predicts image files, and writes their masks and overlays to a folder: all of them, or none after an error.

    Args:
      predictor: the result to apply.
      files: images; each is decoded once.
      out: the folder, which is created if it is missing.
      coarse: folder with a mask <stem>.png per image; required if the result needs coarse masks.
      confidence: whether to write confidences too.
      native_ids: whether masks have the values of the dataset's own mask files.

    Raises:
      InputError: a file cannot be read, a coarse mask is missing or does not fit its image, `out` is not a folder, or
        an output would overwrite an input or another output.
    """
    predictor.check(coarse is not None)
    masks = _coarse_masks(coarse, files, predictor.name) if predictor.needs_coarse else {}
    kinds = ("", "_overlay", *(["_confidence"] if confidence else []))
    _check_outputs(out, files, list(masks.values()), kinds)

    def load(k: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        file = files[k]
        image, mask = read_image(file), read_mask(masks[file]) if masks else None
        try:
            return predictor.row(image, mask), image
        except InputError as error:
            raise InputError(f"{masks.get(file, file)}: {error}") from error

    values = np.arange(256, dtype=np.uint8)
    if native_ids and predictor.native_ids is not None:
        values[: len(predictor.native_ids)] = predictor.native_ids
    # Pictures are moved to the folder together, so that an error leaves none of them.
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".scarce-jax-", dir=existing) as aside:
        for k, image, prediction in predictor.stream(load, len(files), os.cpu_count() or 1):
            pictures = {
                "": values[prediction.labels],
                "_overlay": overlay(image, prediction.labels, predictor.palette),
                "_confidence": prediction.confidence,
            }
            for kind in kinds:
                write_png(_output(pathlib.Path(aside), files[k], kind), pictures[kind])
        out.mkdir(parents=True, exist_ok=True)
        for picture in pathlib.Path(aside).iterdir():
            picture.replace(out / picture.name)


def _coarse_masks(
    folder: pathlib.Path, files: Sequence[pathlib.Path], result: str
) -> Mapping[pathlib.Path, pathlib.Path]:
    """Image file -> its coarse mask."""
    masks = {file: folder / f"{file.stem}.png" for file in files}
    missing = [mask for mask in masks.values() if not mask.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: no such coarse mask ({len(missing)} of {len(files)} are missing); result {result} needs "
            f"one per image, with the image's name and the suffix .png"
        )
    return masks


def _output(folder: pathlib.Path, file: pathlib.Path, kind: str) -> pathlib.Path:
    """Path of a picture of an image; kind is "" for the mask, "_overlay" or "_confidence"."""
    return folder / f"{file.stem}{kind}.png"


def _check_outputs(
    folder: pathlib.Path, files: Sequence[pathlib.Path], masks: Sequence[pathlib.Path], kinds: Sequence[str]
) -> None:
    """Raises InputError if a picture would overwrite an input or another picture."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: is a file; expected a folder, or a path that does not exist")
    inputs = {path.resolve() for path in (*files, *masks)}
    owners: dict[pathlib.Path, pathlib.Path] = {}
    for file in files:
        for kind in kinds:
            path = _output(folder, file, kind)
            if path.resolve() in inputs:
                raise InputError(f"--out {folder}: {path} is an input and would be lost; choose another folder")
            if path in owners:
                raise InputError(f"{owners[path]} and {file}: both would write {path}; rename one of them")
            owners[path] = file
