"""Reading the files of an example. Errors name the file and the example."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping

import cv2
import numpy as np

from scarce_jax.data.image_files import list_images
from scarce_jax.data.images import read_encoded, read_mask, wxh
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError, nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """An example, as `SegmentationBuilder.split_examples` yields it.

    Attributes:
      id: unique in its split. The same id in another split means the same image.
      image: an encoded 8-bit RGB image, PNG or JPEG.
      fine: uint8 [H, W], class index or 255 = void; None if there is none.
      coarse: uint8 [H, W], class index or 255 = void; None if the source has none.
      tags: uint8 [K], multi-hot; None if the source has none. They are then taken from `fine`.
      simulate: simulate a missing coarse mask from `fine`.
    """

    id: str
    image: bytes
    fine: np.ndarray | None = None
    coarse: np.ndarray | None = None
    tags: np.ndarray | None = None
    simulate: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """The files of an example; the fields are those of `Example`, with masks as files of native ids."""

    id: str
    image: pathlib.Path
    masks: Mapping[str, pathlib.Path | None]
    tags: np.ndarray | None = None


def read_examples(files: Iterable[Files], indices: Mapping[int, int], *, simulate: bool = True) -> Iterator[Example]:
    """Reads examples one by one; `indices` as in `read_files`, `simulate` as in `Example`."""
    for paths in files:
        parts = read_files(paths.image, paths.masks, paths.id, indices)
        yield Example(id=paths.id, **parts, tags=paths.tags, simulate=simulate)


def read_files(
    image: pathlib.Path, masks: Mapping[str, pathlib.Path | None], example_id: str, indices: Mapping[int, int]
) -> dict[str, bytes | np.ndarray | None]:
    """Reads and checks the files of an example.

    Args:
      image: an image file (see `images.read_image`).
      masks: name -> file of native ids (see `images.read_mask`), or None.
      example_id: named in errors.
      indices: native id -> class index or 255; 255 itself is always void.

    Returns:
      "image": the encoded image; and for each name of `masks` uint8 [H, W], or None.

    Raises:
      InputError: a file is missing, empty, truncated or of a wrong kind, or a mask differs in size from the image.
    """
    with naming("image", example_id):
        data, size = read_encoded(image)
    parts: dict[str, bytes | np.ndarray | None] = {"image": data}
    for name, path in masks.items():
        parts[name] = None if path is None else read_indices(path, example_id, indices)
        if path is not None:
            check_size(parts[name], path, size, image, example_id)
    return parts


def masks_of(folder: pathlib.Path, images: Mapping[str, pathlib.Path], beside: pathlib.Path) -> dict[str, pathlib.Path]:
    """Lists the mask files of a folder by stem; {} if the folder does not exist.

    Args:
      folder: the folder of the masks.
      images: stem -> image file.
      beside: the folder of the images, for messages.

    Raises:
      InputError: a mask has no image, or as in `list_images`.
    """
    masks = list_images(folder)
    refuse_stray(masks, images, beside)
    return masks


def refuse_stray(masks: Mapping[str, object], images: Collection[str], beside: pathlib.Path) -> None:
    """Raises InputError if a mask has no image.

    Args:
      masks: stem of the image -> mask, whose text names its file.
      images: stems of the images.
      beside: the folder of the images.
    """
    stray = [stem for stem in masks if stem not in images]
    if stray:
        raise InputError(
            f"{masks[stray[0]]}: no image in {beside} is called {stray[0]!r} ({len(stray)} of {len(masks)} masks)"
            f"{nearest(stray[0], images)}; rename it to the name of its image, add the image, or remove the mask"
        )


@contextlib.contextmanager
def naming(kind: str, example_id: str) -> Iterator[None]:
    """Prefixes an InputError of the block with the kind of file ("image" or "mask") and the example."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{kind} of example {example_id}: {error}") from error


def check_size(mask: np.ndarray, path: object, size: tuple[int, int], image: pathlib.Path, example_id: str) -> None:
    """Raises InputError unless a mask [H, W] has the size (H, W) of its image."""
    if mask.shape != size:
        raise InputError(
            f"{path} (example {example_id}): the mask is {wxh(mask.shape)} pixels, its image {image} is "
            f"{wxh(size)}; both must have the same size"
        )


def read_indices(
    path: pathlib.Path, example_id: str, indices: Mapping[int, int], *, two_bytes: bool = False
) -> np.ndarray:
    """Reads a mask file of native ids (see `images.read_mask`) as uint8 [H, W], class index or 255 = void.

    Raises:
      InputError: as in `read_mask`, or the mask has an unknown id.
    """
    with naming("mask", example_id):
        ids = read_mask(path, two_bytes=two_bytes)
    return to_indices(ids, path, example_id, indices)


def to_indices(ids: np.ndarray, path: pathlib.Path, example_id: str, indices: Mapping[int, int]) -> np.ndarray:
    """Maps native ids [H, W] to class indices or 255, uint8; raises InputError for an unknown id.

    The message has `example_id`, unless it is empty.
    """
    values = np.unique(ids)
    table = {IGNORE: IGNORE, **indices}
    unknown = [int(v) for v in values if int(v) not in table]
    if unknown:
        raise InputError(
            f"{path}{example_id and f' (example {example_id})'}: id {unknown[0]} is in the mask "
            f"({np.count_nonzero(ids == unknown[0])} pixels), expected ids {ranges(sorted(table))}"
        )
    mapped = np.array([table[int(v)] for v in values], np.uint8)
    return mapped[np.searchsorted(values, ids)]


def encode_mask(mask: np.ndarray) -> bytes:
    """Encodes uint8 [H, W] as an 8-bit grey PNG; a palette PNG would be decoded to colours."""
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"a mask must be uint8 [H, W], got {mask.dtype} {list(mask.shape)}")
    return cv2.imencode(".png", mask)[1].tobytes()


def encode_image(image: np.ndarray, quality: int = 95) -> bytes:
    """Encodes uint8 [H, W, 3] RGB as a JPEG without chroma subsampling."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)[1].tobytes()


def ranges(values: list[int]) -> str:
    """Formats sorted integers: [0, 1, 2, 255] as "0..2, 255"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)
