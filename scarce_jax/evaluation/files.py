"""Predicting image files: finding them, and writing masks and overlays."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from scarce_jax.data.builders.files import to_indices
from scarce_jax.data.decoding import read_size
from scarce_jax.data.image_files import SUFFIXES, composed, list_images, scan_images
from scarce_jax.data.images import read_image, read_mask, write_png
from scarce_jax.data.pictures import add_legend, file_palette, overlay
from scarce_jax.errors import InputError, plural
from scarce_jax.evaluation.aside import folder_aside
from scarce_jax.evaluation.predict import Prediction, Predictor

log = logging.getLogger("scarce_jax")

LARGE = 4_000_000
"""Pixels from which an image is predicted alone, so that a photograph's memory is not taken several times."""

LONGEST = 255
"""Bytes of a file's name that common file systems take."""


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image to predict.

    Attributes:
      path: the file.
      name: of its pictures below the folder that they are written to, without suffix ("cam1/x").
    """

    path: pathlib.Path
    name: str


def find_images(
    paths: Sequence[pathlib.Path], aside: Sequence[pathlib.Path] = ()
) -> tuple[list[ImageFile], list[InputError]]:
    """Lists the image files among `paths`, and those in the folders among them and in their subfolders, in order.

    Each folder's tree is kept in the names: `photos/cam1/x.jpg` of `photos` is "cam1/x". `data.image_files.scan_images`
    says which files are left out.

    Args:
      paths: image files and folders.
      aside: folders whose files are left out: those of the masks that are read or written, which may lie in a folder
        of images.

    Returns:
      The images, and what is wrong with other files: they do not exist, or are no images that can be read.

    Raises:
      InputError: a folder among `paths` is one of `aside` or lies in it, or no image is found and nothing is wrong.
    """
    apart = [folder.resolve() for folder in aside]
    images: dict[ImageFile, None] = {}
    faults: list[InputError] = []
    left_out = 0
    for path in paths:
        try:
            is_folder, exists = path.is_dir(), path.exists()
        except OSError as error:
            faults.append(InputError(f"{path}: cannot be opened ({error.strerror}); expected an image, or a folder"))
            continue
        if not exists:
            faults.append(InputError(f"{path}: no such file or folder; expected an image, or a folder of images"))
        elif not is_folder:
            images[ImageFile(path, composed(path.stem))] = None
        elif _is_below(path / "x", apart):
            raise InputError(
                f"{path}: lies in {' or '.join(map(str, aside))}, the folder of the masks, so that masks could replace "
                f"images or be read as such; choose another folder for the masks, such as {path / 'masks'}"
            )
        else:
            listed, wrong = scan_images(path)
            faults += wrong
            kept = {stem: file for stem, file in listed.items() if not _is_below(file, apart)}
            left_out += len(listed) - len(kept)
            images |= dict.fromkeys(ImageFile(file, stem) for stem, file in kept.items())
    if left_out:
        folders = " and ".join(map(str, aside))
        log.info("left out %s in %s, because masks are no images to predict", plural(left_out, "file"), folders)
    if not images and not faults:
        where = ", ".join(map(str, paths)) or "paths"
        raise InputError(f"{where}: no image found; expected files ending in {', '.join(SUFFIXES)}")
    return list(images), faults


def _is_below(file: pathlib.Path, folders: Sequence[pathlib.Path]) -> bool:
    return any(file.parent.resolve().is_relative_to(folder) for folder in folders)


def predict_files(
    predictor: Predictor,
    images: Sequence[ImageFile],
    out: pathlib.Path,
    *,
    coarse: pathlib.Path | None,
    confidence: bool,
    native_ids: bool,
    keep_going: bool = False,
) -> list[InputError]:
    """Predicts image files, and writes their masks and overlays to a folder: all of them, or none after an error.

    Masks are palette files in the colours of the classes. Overlays have a legend below the image.

    Args:
      predictor: the result to apply.
      images: each is decoded once; large ones are predicted last, one at a time.
      out: the folder, which is created if it is missing.
      coarse: folder with a mask per image, of its name with any suffix; required if the result needs coarse masks.
      confidence: whether to write confidences too.
      native_ids: whether masks, coarse ones too, have the values of the dataset's own mask files.
      keep_going: leave out images that cannot be read, and those whose coarse mask is missing or does not fit.

    Returns:
      What is wrong with the images that were left out; [] without `keep_going`.

    Raises:
      InputError: without `keep_going`, a file cannot be read, or a coarse mask is missing or does not fit its image;
        `out` is not a folder, or an output would overwrite an input or another output, or has too long a name; or
        `coarse` is given to a result that reads no coarse masks.
    """
    predictor.check(coarse is not None)
    needs_coarse = predictor.needs_coarse
    if coarse is not None and not needs_coarse:
        raise InputError(f"--coarse {coarse}: result {predictor.name} reads no coarse masks; leave it out")
    masks = _coarse_masks(coarse) if needs_coarse else {}
    if needs_coarse and not keep_going:
        _check_coarse(coarse, masks, images, predictor.name)
    kinds = ("", "_overlay", *(["_confidence"] if confidence else []))
    _check_outputs(out, images, list(masks.values()), kinds)
    faults: list[InputError] = []

    def load(k: int) -> tuple[dict[str, np.ndarray] | None, np.ndarray | InputError]:
        image = images[k]
        try:
            if needs_coarse and image.name not in masks:
                _check_coarse(coarse, masks, [image], predictor.name)
            pixels = read_image(image.path)
            mask = _read_coarse(masks[image.name], image.name, predictor, native_ids) if needs_coarse else None
            try:
                return predictor.row(pixels, mask), pixels
            except InputError as error:
                raise InputError(f"{masks.get(image.name, image.path)}: {error}") from error
        except InputError as error:
            if not keep_going:
                raise
            return None, error

    ids = predictor.native_ids if native_ids else None
    values, palette = _file_ids(ids), file_palette(predictor.palette, ids)
    # Pictures are moved to the folder together, so that an error leaves none of them.
    with folder_aside(out) as aside:
        done = []
        for k, pixels, prediction in _stream(predictor, load, images):
            if prediction is None:
                faults.append(pixels)
                continue
            tinted = overlay(pixels, prediction.labels, predictor.palette)
            pictures = {
                "_overlay": add_legend(tinted, prediction.labels, predictor.classes, predictor.palette),
                "_confidence": prediction.confidence,
            }
            write_png(aside / f"{k}.png", values[prediction.labels], palette)
            for kind in kinds[1:]:
                write_png(aside / f"{k}{kind}.png", pictures[kind])
            done.append(k)
        for k in done:
            for kind in kinds:
                path = _output(out, images[k], kind)
                path.parent.mkdir(parents=True, exist_ok=True)
                (aside / f"{k}{kind}.png").replace(path)
    return faults


def _stream(
    predictor: Predictor,
    load: Callable[[int], tuple[dict | None, np.ndarray | InputError]],
    images: Sequence[ImageFile],
) -> Iterator[tuple[int, np.ndarray | InputError, Prediction | None]]:
    """`Predictor.stream` of all images, with a progress bar on a terminal; large images come last, one at a time."""
    large = [k for k, image in enumerate(images) if _pixels(image.path) > LARGE]
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


def _pixels(path: pathlib.Path) -> int:
    """Pixels of an image by its header; 0 if it cannot be read, which is told when it is decoded."""
    try:
        return math.prod(read_size(path))
    except InputError:
        return 0


def _file_ids(ids: Sequence[int] | None) -> np.ndarray:
    """The value of each class index in a mask file, uint8 [256]; 255 stays void."""
    values = np.arange(256, dtype=np.uint8)
    if ids is not None:
        if max(ids) > 255:
            raise InputError(
                f"--native-ids: class id {max(ids)} of the dataset's own mask files does not fit in the 8-bit masks "
                f"that are written; leave out --native-ids, which gives class indices"
            )
        values[: len(ids)] = ids
    return values


def _coarse_masks(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name of an image -> its coarse mask."""
    if not folder.is_dir():
        raise InputError(f"--coarse {folder}: no such folder; expected one of coarse masks, named as their images")
    return list_images(folder)


def _check_coarse(
    folder: pathlib.Path, masks: Mapping[str, pathlib.Path], images: Sequence[ImageFile], result: str
) -> None:
    """Raises InputError if an image has no coarse mask."""
    missing = [image for image in images if image.name not in masks]
    if missing:
        raise InputError(
            f"{missing[0].path}: no such coarse mask as {folder / missing[0].name}.png ({len(missing)} of "
            f"{len(images)} are missing); result {result} needs one per image, in the same subfolder and with the same "
            "name, of any suffix"
        )


def _read_coarse(path: pathlib.Path, name: str, predictor: Predictor, native_ids: bool) -> np.ndarray:
    """Reads a coarse mask as class ids, uint8 [H, W], 255 = void."""
    try:
        return to_indices(read_mask(path), path, name, predictor.indices(native_ids))
    except InputError as error:
        if native_ids or predictor.native_ids is None:
            raise
        raise InputError(
            f"{error} Give --native-ids if the masks have the values of the dataset's own files."
        ) from error


def _output(folder: pathlib.Path, image: ImageFile, kind: str) -> pathlib.Path:
    """Path of a picture of an image; kind is "" for the mask, "_overlay" or "_confidence"."""
    return folder / f"{image.name}{kind}.png"


def _check_outputs(
    folder: pathlib.Path, images: Sequence[ImageFile], masks: Sequence[pathlib.Path], kinds: Sequence[str]
) -> None:
    """Raises InputError if a picture would overwrite an input or another picture, or cannot have its name."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: is a file; expected a folder, or a path that does not exist")
    inputs = {path.resolve() for path in (*(image.path for image in images), *masks)}
    owners: dict[pathlib.Path, pathlib.Path] = {}
    for image in images:
        for kind in kinds:
            path = _output(folder, image, kind)
            if path.resolve() in inputs:
                raise InputError(f"--out {folder}: {path} is an input and would be lost; choose another folder")
            if path in owners:
                raise InputError(
                    f"{owners[path]} and {image.path}: both would write {path}; rename one of them, or predict them in "
                    "two commands, or give a folder above both, whose subfolders are kept"
                )
            if len(os.fsencode(path.name)) > LONGEST:
                raise InputError(
                    f"{image.path}: its picture {path.name} would have a name of {len(os.fsencode(path.name))} bytes, "
                    f"expected at most {LONGEST}; rename the image"
                )
            in_the_way = [above for above in path.relative_to(folder).parents if (folder / above).is_file()]
            if in_the_way or path.is_dir():
                where = folder / in_the_way[0] if in_the_way else path
                raise InputError(f"--out {folder}: {where} is in the way; remove it, or choose another folder")
            owners[path] = image.path
