"""The pictures that `predict` writes for an image: a mask, or maps, with an overlay of each."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from scarce_jax.data.pictures import add_legend, file_palette, heat, overlay
from scarce_jax.errors import InputError
from scarce_jax.evaluation.inputs import Image
from scarce_jax.evaluation.predict import PredictedMaps, Prediction, Predictor

LONGEST = 255
"""Bytes of a file's name that common file systems take."""

Picture = tuple[str, np.ndarray, np.ndarray | None]
"""What follows the image's name in the file's, pixels for `write_png`, and their palette."""


@dataclasses.dataclass(frozen=True)
class MaskPictures:
    """A mask in the colours of the classes; perhaps the tinted image with a legend below it, and the confidence.

    Attributes:
      predictor: predicts masks.
      overlays: whether to write overlays.
      confidence: whether to write confidences.
      native_ids: whether masks have the values of the dataset's own mask files.
    """

    predictor: Predictor
    overlays: bool
    confidence: bool
    native_ids: bool

    @property
    def kinds(self) -> tuple[str, ...]:
        """What follows the image's name in the names of its files."""
        return ("", *(["_overlay"] if self.overlays else []), *(["_confidence"] if self.confidence else []))

    def __call__(self, image: np.ndarray, prediction: Prediction) -> Iterator[Picture]:
        """Yields the pictures of an image uint8 [H, W, 3].

        Raises:
          InputError: a native id does not fit in 8 bits.
        """
        ids = self.predictor.native_ids if self.native_ids else None
        classes, palette = self.predictor.classes, self.predictor.palette
        yield "", _file_ids(ids)[prediction.labels], file_palette(palette, ids)
        if self.overlays:
            tinted = overlay(image, prediction.labels, palette)
            yield "_overlay", add_legend(tinted, prediction.labels, classes, palette), None
        if self.confidence:
            yield "_confidence", prediction.confidence, None


@dataclasses.dataclass(frozen=True)
class MapPictures:
    """Each map that is not all zero as a grey picture, white where it is 1, and perhaps laid over the image.

    Attributes:
      predictor: makes maps.
      overlays: whether to write overlays.
    """

    predictor: Predictor
    overlays: bool

    @property
    def names(self) -> tuple[str, ...]:
        """What follows the image's name in the name of each map's file, with "-" for what is no letter or digit."""
        plain = [re.sub(r"[^\w.]+", "-", name) for name in self.predictor.map_names]
        return tuple(f"_{name}" if plain.count(name) == 1 else f"_{name}-{k}" for k, name in enumerate(plain))

    @property
    def kinds(self) -> tuple[str, ...]:
        """What follows the image's name in the names of its files."""
        return tuple(f"{name}{kind}" for name in self.names for kind in (["", "_overlay"] if self.overlays else [""]))

    def __call__(self, image: np.ndarray, prediction: PredictedMaps) -> Iterator[Picture]:
        """Yields the pictures of an image uint8 [H, W, 3]."""
        for name, values in zip(self.names, np.moveaxis(prediction.values, -1, 0), strict=True):
            if values.any():
                yield name, values, None
                if self.overlays:
                    yield f"{name}_overlay", heat(image, values), None


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


def output(folder: pathlib.Path, image: Image, kind: str) -> pathlib.Path:
    """Path of a picture of an image; `kind` is what follows the image's name, "" for the mask."""
    return folder / f"{image.name}{kind}.png"


def check_outputs(
    folder: pathlib.Path, images: Sequence[Image], masks: Sequence[pathlib.Path], kinds: Sequence[str]
) -> None:
    """Raises InputError if a picture would overwrite an input or another picture, or cannot have its name."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: is a file; expected a folder, or a path that does not exist")
    files = (*(image.path for image in images), *masks)
    inputs = {path.resolve() for path in files if path is not None}
    owners: dict[pathlib.Path, Image] = {}
    for image in images:
        for kind in kinds:
            path = output(folder, image, kind)
            if path.resolve() in inputs:
                raise InputError(f"--out {folder}: {path} is an input and would be lost; choose another folder")
            if path in owners:
                raise InputError(
                    f"{owners[path]} and {image}: both would write {path}; rename one of them, or predict them in "
                    "two commands, or give a folder above both, whose subfolders are kept"
                )
            if len(os.fsencode(path.name)) > LONGEST:
                raise InputError(
                    f"{image}: its picture {path.name} would have a name of {len(os.fsencode(path.name))} bytes, "
                    f"expected at most {LONGEST}; rename the image"
                )
            in_the_way = [above for above in path.relative_to(folder).parents if (folder / above).is_file()]
            if in_the_way or path.is_dir():
                where = folder / in_the_way[0] if in_the_way else path
                raise InputError(f"--out {folder}: {where} is in the way; remove it, or choose another folder")
            owners[path] = image
