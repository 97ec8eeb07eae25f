"""From the files of a source folder to the parts of an example, with every defect named by file and example id."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import warnings
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import ExifTags, Image

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
      masks: for every name a file of class ids, see `read_mask`; None gives None.
      example_id: named in errors.
      indices: native id -> class index or 255; 255 itself always stays 255.

    Raises:
      InputError: a file is missing, empty, truncated, not what it should be, or the image and a mask differ in size.
    """
    data, size = read_image(image, example_id)
    found: dict[str, bytes | np.ndarray | None] = {"image": data}
    for name, path in masks.items():
        found[name] = None if path is None else read_mask(path, example_id, indices)
        if path is not None:
            check_size(found[name], path, size, image, example_id)
    return found


def check_size(
    mask: np.ndarray, path: pathlib.Path, size: tuple[int, int], image: pathlib.Path, example_id: str
) -> None:
    """Raises InputError unless the mask [H, W] of the file `path` has the `size` (H, W) of its image."""
    if mask.shape != size:
        raise InputError(
            f"{path} (example {example_id}): the mask is {wxh(mask.shape)} pixels, its image {image} is "
            f"{wxh(size)}; both must have the same size"
        )


def read_image(path: pathlib.Path, example_id: str) -> tuple[bytes, tuple[int, int]]:
    """The encoded image and its (H, W).

    The file's own bytes where they are an upright 8-bit RGB JPEG or PNG; else (grey, alpha, palette, CMYK, 16 bit,
    EXIF rotation, another format) the picture as RGB PNG, because readers decode without converting.
    """
    data = _read(path, example_id, "image")
    picture = _decode(data, path, example_id, "image")
    upright = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
    plain = picture.format == "JPEG" or (picture.format == "PNG" and _png_depth(data) == 8)
    if upright and plain and picture.mode == "RGB" and "transparency" not in picture.info:
        return data, (picture.height, picture.width)
    if picture.mode.startswith("I"):
        # Pillow clips 16-bit grey to 255 when it converts; a photograph wants its upper 8 bits.
        picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    rgb = _upright(picture).convert("RGB")
    out = io.BytesIO()
    rgb.save(out, format="PNG", compress_level=3)
    return out.getvalue(), (rgb.height, rgb.width)


def read_mask(path: pathlib.Path, example_id: str, indices: Mapping[int, int]) -> np.ndarray:
    """A mask file of native ids as uint8 [H, W] class indices, 255 = void.

    Grey files hold the ids themselves, palette files the ids as palette indices (their colours say nothing).
    """
    return to_indices(mask_ids(path, example_id), path, example_id, indices)


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


def _read(path: pathlib.Path, example_id: str, what: str) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: the {what} of example {example_id} is missing; restore it or take it off the list")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} (example {example_id}): the {what} cannot be read ({error})") from error
    if not data:
        raise InputError(f"{path} (example {example_id}): the {what} is an empty file; fetch it again")
    return data


def _decode(data: bytes, path: pathlib.Path, example_id: str, what: str) -> Image.Image:
    try:
        # Pillow warns of huge pictures and odd metadata, neither of which says that the pixels are wrong.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data))
            picture.load()
    except Exception as error:  # Pillow's parsers raise OSError, SyntaxError, struct.error and more on damaged files
        raise InputError(
            f"{path} (example {example_id}): the {what} cannot be decoded ({error}); it is damaged or cut off, "
            "fetch it again"
        ) from error
    return picture


def mask_ids(path: pathlib.Path, example_id: str) -> np.ndarray:
    """The ids of a mask file as they are stored, int64 [H, W]; raises as `read_mask`, whatever the ids."""
    data = _read(path, example_id, "mask")
    picture = _decode(data, path, example_id, "mask")
    if picture.format in ("JPEG", "WEBP", "MPO"):
        raise InputError(
            f"{path} (example {example_id}): the mask is a {picture.format} file, whose compression changes ids; "
            "expected class ids in a PNG"
        )
    if picture.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
        raise InputError(
            f"{path} (example {example_id}): the mask is a colour image (mode {picture.mode}), expected one class id "
            "per pixel (8-bit grey or palette); convert its colours to ids first"
        )
    ids = np.asarray(_upright(picture)).astype(np.int64)
    if picture.format == "PNG" and picture.mode == "L" and _png_depth(data) < 8:
        # Pillow spreads 2- and 4-bit grey over 0..255, which is right for a photograph and wrong for ids.
        ids //= 255 // (2 ** _png_depth(data) - 1)
    return ids


def _upright(picture: Image.Image) -> Image.Image:
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(picture.getexif().get(ExifTags.Base.Orientation, 1))  # fmt: skip
    return picture if turn is None else picture.transpose(turn)


def _png_depth(data: bytes) -> int:
    # Signature 8 bytes, chunk length and name 8, width and height 8.
    return data[24]


def wxh(shape: tuple[int, ...]) -> str:
    """(H, W) as "WxH", for messages."""
    return f"{shape[1]}x{shape[0]}"


def ranges(values: list[int]) -> str:
    """[0, 1, 2, 255] as "0..2, 255"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)
