"""Predicting images, and writing the pictures of them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from scarce_jax.data.builders.files import to_indices
from scarce_jax.data.image_files import list_images
from scarce_jax.data.images import read_mask, write_png
from scarce_jax.errors import InputError
from scarce_jax.evaluation.aside import folder_aside
from scarce_jax.evaluation.inputs import Image, SplitImage
from scarce_jax.evaluation.outputs import MapPictures, MaskPictures, check_outputs, output
from scarce_jax.evaluation.predict import PredictedMaps, Prediction, Predictor

LARGE = 4_000_000
"""Pixels from which an image is predicted alone, so that a photograph's memory is not taken several times."""


def predict_files(
    predictor: Predictor,
    images: Sequence[Image],
    out: pathlib.Path,
    *,
    coarse: pathlib.Path | None,
    overlays: bool = True,
    confidence: bool = False,
    native_ids: bool = False,
    keep_going: bool = False,
) -> list[InputError]:
    """Predicts images, and writes `MaskPictures` or `MapPictures` to a folder: of all of them, or none after an error.

    Args:
      predictor: the result or the maps to apply.
      images: each is decoded once; large ones are predicted last, one at a time.
      out: the folder, which is created if it is missing.
      coarse: folder with a mask per image, of its name with any suffix, for results that need coarse masks; None takes
        those of the dataset, which image files do not have.
      overlays: whether to write overlays too.
      confidence: whether to write confidences too.
      native_ids: whether masks, coarse ones too, have the values of the dataset's own mask files.
      keep_going: leave out images that cannot be read, and those whose coarse mask is missing or does not fit.

    Returns:
      What is wrong with the images that were left out; [] without `keep_going`.

    Raises:
      InputError: without `keep_going`, a file cannot be read, or a coarse mask is missing or does not fit its image;
        `out` is not a folder, or an output would overwrite an input or another output, or has too long a name;
        `coarse` is given to a result that reads no coarse masks; or confidences or native ids are asked of maps.
    """
    for flag, given in (("--confidence", confidence), ("--native-ids", native_ids)):
        if given and predictor.map_names:
            raise InputError(f"{flag}: result {predictor.name} makes maps, no masks; leave it out")
    predictor.check(coarse is not None or all(isinstance(image, SplitImage) for image in images))
    needs_coarse = predictor.needs_coarse
    if coarse is not None and not needs_coarse:
        raise InputError(f"--coarse {coarse}: result {predictor.name} reads no coarse masks; leave it out")
    masks = _coarse_masks(coarse, images) if needs_coarse else {}
    if needs_coarse and not keep_going:
        _check_coarse(coarse, masks, images, predictor.name)
    if predictor.map_names:
        draw = MapPictures(predictor, overlays)
    else:
        draw = MaskPictures(predictor, overlays, confidence, native_ids)
    check_outputs(out, images, [mask for mask in masks.values() if isinstance(mask, pathlib.Path)], draw.kinds)
    faults: list[InputError] = []

    def load(k: int) -> tuple[dict[str, np.ndarray] | None, np.ndarray | InputError]:
        image = images[k]
        try:
            if needs_coarse and image.name not in masks:
                _check_coarse(coarse, masks, [image], predictor.name)
            pixels = image.read()
            mask = _read_coarse(masks[image.name], image.name, predictor, native_ids) if needs_coarse else None
            try:
                return predictor.row(pixels, mask), pixels
            except InputError as error:
                raise InputError(f"{masks.get(image.name, image)}: {error}") from error
        except InputError as error:
            if not keep_going:
                raise
            return None, error

    # Pictures are moved to the folder together, so that an error leaves none of them.
    with folder_aside(out) as aside:
        done: list[tuple[int, str]] = []
        for k, pixels, prediction in _stream(predictor, load, images):
            if prediction is None:
                faults.append(pixels)
                continue
            for kind, picture, palette in draw(pixels, prediction):
                write_png(aside / f"{k}{kind}.png", picture, palette)
                done.append((k, kind))
        for k, kind in done:
            path = output(out, images[k], kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            (aside / f"{k}{kind}.png").replace(path)
    return faults


def _stream(
    predictor: Predictor,
    load: Callable[[int], tuple[dict | None, np.ndarray | InputError]],
    images: Sequence[Image],
) -> Iterator[tuple[int, np.ndarray | InputError, Prediction | PredictedMaps | None]]:
    """`Predictor.stream` of all images, with a progress bar on a terminal; large images come last, one at a time."""
    large = [k for k, image in enumerate(images) if image.count_pixels() > LARGE]
    others = sorted(set(range(len(images))) - set(large))
    # A batch is filled with copies, so one that is larger than the number of images only takes longer.
    batch = min(predictor.batch, -(-len(others) // predictor.devices))
    with tqdm(total=len(images), desc="predicting", unit=" images", leave=False, disable=None) as bar:
        for numbers, size, threads in ((others, batch, os.cpu_count() or 1), (large, 1, 0)):
            if not numbers:
                continue
            for k, payload, prediction in predictor.stream(
                lambda k, numbers=numbers: load(numbers[k]), len(numbers), threads, size
            ):
                yield numbers[k], payload, prediction
                bar.update()


def _coarse_masks(folder: pathlib.Path | None, images: Sequence[Image]) -> Mapping[str, pathlib.Path | SplitImage]:
    """Name of an image -> what has its coarse mask: a file of the folder or, without one, the image's example."""
    if folder is None:
        return {image.name: image for image in images if isinstance(image, SplitImage) and image.has_coarse}
    if not folder.is_dir():
        raise InputError(f"--coarse {folder}: no such folder; expected one of coarse masks, named as their images")
    return list_images(folder)


def _check_coarse(
    folder: pathlib.Path | None,
    masks: Mapping[str, pathlib.Path | SplitImage],
    images: Sequence[Image],
    result: str,
) -> None:
    """Raises InputError if an image has no coarse mask."""
    missing = [image for image in images if image.name not in masks]
    if not missing:
        return
    count = f"{len(missing)} of {len(images)} are missing"
    if folder is None:
        raise InputError(
            f"{missing[0]}: has no coarse mask ({count}); result {result} needs one per image: give a folder of them "
            f"with --coarse, or leave these images out with --keep-going"
        )
    raise InputError(
        f"{missing[0]}: no such coarse mask as {folder / missing[0].name}.png ({count}); result {result} needs one per "
        f"image, in the same subfolder and with the same name, of any suffix"
    )


def _read_coarse(mask: pathlib.Path | SplitImage, name: str, predictor: Predictor, native_ids: bool) -> np.ndarray:
    """Reads a coarse mask as class ids, uint8 [H, W], 255 = void."""
    if isinstance(mask, SplitImage):
        return mask.read_coarse()
    try:
        return to_indices(read_mask(mask), mask, name, predictor.indices(native_ids))
    except InputError as error:
        if native_ids or predictor.native_ids is None:
            raise
        raise InputError(
            f"{error} Give --native-ids if the masks have the values of the dataset's own files."
        ) from error
