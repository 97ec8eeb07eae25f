"""From the files of a source folder to the parts of an example, with every defect named by file and example id."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import cv2
import numpy as np

from scarce_jax.data.images import read_encoded, read_mask, wxh
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """What a builder hands over for one example.

    Attributes:
      id: unique in its split. An example of another split may have it only if it is the same image.
      image: an encoded 8-bit RGB image, PNG or JPEG.
      fine: uint8 [H, W], class index or 255 = void; None where there is none.
      coarse: uint8 [H, W], class index or 255 = unlabelled; None where there is none of the source's own.
      tags: uint8 [K] multi-hot; None to take them from `fine`, or where they are not known.
      simulate: have a missing coarse mask simulated from `fine`.
    """

    id: str
    image: bytes
    fine: np.ndarray | None = None
    coarse: np.ndarray | None = None
    tags: np.ndarray | None = None
    simulate: bool = True


def read_files(
    image: pathlib.Path, masks: Mapping[str, pathlib.Path | None], example_id: str, indices: Mapping[int, int]
) -> dict[str, bytes | np.ndarray | None]:
    """The encoded `image` and the masks uint8 [H, W] of an example, all decoded once to be sure that they are whole.

    Args:
      image: image file of any format that Pillow reads.
      masks: for every name a file of class ids, see `images.read_mask`; None gives None.
      example_id: named in errors.
      indices: native id -> class index or 255; 255 itself always stays 255.

    Raises:
      InputError: a file is missing, empty, truncated, not what it should be, or the image and a mask differ in size.
    """
    with naming("image", example_id):
        data, size = read_encoded(image)
    parts: dict[str, bytes | np.ndarray | None] = {"image": data}
    for name, path in masks.items():
        parts[name] = None if path is None else read_indices(path, example_id, indices)
        if path is not None:
            check_size(parts[name], path, size, image, example_id)
    return parts


@contextlib.contextmanager
def naming(kind: str, example_id: str) -> Iterator[None]:
    """Puts before the message of an InputError what the file ("image" or "mask") is of which example."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{kind} of example {example_id}: {error}") from error


def check_size(
    mask: np.ndarray, path: pathlib.Path, size: tuple[int, int], image: pathlib.Path, example_id: str
) -> None:
    """Raises InputError unless the mask [H, W] of the file `path` has the `size` (H, W) of its image."""
    if mask.shape != size:
        raise InputError(
            f"{path} (example {example_id}): the mask is {wxh(mask.shape)} pixels, its image {image} is "
            f"{wxh(size)}; both must have the same size"
        )


def read_indices(path: pathlib.Path, example_id: str, indices: Mapping[int, int]) -> np.ndarray:
    """A mask file of native ids (see `images.read_mask`) as uint8 [H, W] class indices, 255 = void."""
    with naming("mask", example_id):
        ids = read_mask(path)
    return to_indices(ids, path, example_id, indices)


def to_indices(ids: np.ndarray, path: pathlib.Path, example_id: str, indices: Mapping[int, int]) -> np.ndarray:
    """Native ids, of integers [H, W], as uint8 [H, W] class indices, 255 = void; raises InputError for another id."""
    values = np.unique(ids)
    table = {IGNORE: IGNORE, **indices}
    unknown = [int(v) for v in values if int(v) not in table]
    if unknown:
        known = sorted(table)
        raise InputError(
            f"{path} (example {example_id}): id {unknown[0]} is in the mask "
            f"({np.count_nonzero(ids == unknown[0])} pixels), expected ids {ranges(known)}; "
            "is this the dataset's own encoding?"
        )
    mapped = np.array([table[int(v)] for v in values], np.uint8)
    return mapped[np.searchsorted(values, ids)]


def encode_mask(mask: np.ndarray) -> bytes:
    """uint8 [H, W] as an 8-bit grey PNG; a palette PNG would be read back as colours."""
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"a mask must be uint8 [H, W], got {mask.dtype} {list(mask.shape)}")
    return cv2.imencode(".png", mask)[1].tobytes()


def encode_image(image: np.ndarray, quality: int = 95) -> bytes:
    """uint8 [H, W, 3] RGB as JPEG with colours at full resolution."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)[1].tobytes()


def ranges(values: list[int]) -> str:
    """[0, 1, 2, 255] as "0..2, 255"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)
