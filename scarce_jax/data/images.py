"""Image files in, image files out, and resizing."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from scarce_jax.data.files import write_atomically
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError

_ID_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
_LOSSY = ("JPEG", "MPO", "WEBP")


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image file of any format as uint8 [H, W, 3] RGB.

    The EXIF rotation is applied. Grey, palette and CMYK become RGB. Transparency is ignored: a pixel has the colour
    that is stored for it. Of 16 bits the upper 8 are taken. Of an animation the first frame is read.

    Raises:
      InputError: the file is missing, empty, cut off, no image, or has pixels without a known range (32-bit).
    """
    with _opened(path) as image:
        return np.array(_to_rgb(image, path))


def read_encoded(path: str | os.PathLike) -> tuple[bytes, tuple[int, int]]:
    """Reads an image file as the bytes of an upright 8-bit RGB image, PNG or JPEG, and its (height, width).

    These are the file's own bytes where it is such an image, so that no JPEG is compressed twice; else those of a PNG
    of what `read_image` reads. Raises as `read_image`.
    """
    with _opened(path) as image:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        plain = image.format == "JPEG" or (image.format == "PNG" and bit_depth(path) == 8)
        if upright and plain and image.mode == "RGB" and "transparency" not in image.info:
            return pathlib.Path(path).read_bytes(), (image.height, image.width)
        rgb = np.array(_to_rgb(image, path))
    return encode_png(rgb, compression=3), rgb.shape[:2]


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Reads the ids of a mask file: uint8 [H, W], or int64 [H, W] where the file has more than 8 bits a pixel.

    Grey files hold the ids themselves, palette files the ids as palette indices (their colours say nothing), 1-bit
    files 0 and 1. The EXIF rotation is applied, as it is to the image.

    Raises:
      InputError: the file is missing, empty, cut off or no image, its pixels are colours, or its compression is lossy.
    """
    with _opened(path) as image:
        if image.format in _LOSSY:
            raise InputError(
                f"{path}: the mask is a {image.format} file, whose compression changes ids; expected class ids in a PNG"
            )
        if image.mode not in _ID_MODES:
            raise InputError(
                f"{path}: the mask is a colour image (mode {image.mode}), expected one class id per pixel (8-bit grey "
                "or palette); convert its colours to ids first"
            )
        ids = np.array(ImageOps.exif_transpose(image)).astype(np.int64 if image.mode.startswith("I") else np.uint8)
        # Pillow stretches grey PNGs of 2 and 4 bits, which optimisers of PNG files make, to 0..255: undo it.
        depth = bit_depth(path) if image.mode == "L" and image.format == "PNG" else 8
        return ids // (255 // (2**depth - 1)) if depth < 8 else ids


def bit_depth(path: str | os.PathLike) -> int:
    """Bits per sample of a PNG file, from its header: signature 8 bytes, chunk head 8, width and height 8."""
    with open(path, "rb") as file:
        return file.read(25)[24]


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """A decoded PIL image; every fault of the file, also one noticed inside the block, is an InputError."""
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected an image file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty (0 bytes), expected an image")
    try:
        # Pillow warns of huge pictures and odd metadata, neither of which says that the pixels are wrong.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                yield image
    except InputError:
        raise
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{path}: cannot be decoded (not an image, or of an unknown format); replace or remove it"
        ) from error
    # Decoders of damaged files raise nearly anything: OSError, SyntaxError, struct.error, IndexError.
    except Exception as error:
        raise InputError(
            f"{path}: cannot be decoded ({type(error).__name__}: {error}); it is damaged or cut off, replace or remove "
            "it"
        ) from error


def _to_rgb(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InputError(f"{path}: 32-bit float pixels, expected 8 or 16 bits; convert it to PNG")
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise InputError(
                f"{path}: 32-bit pixels from {deep.min()} to {deep.max()}, expected 8 or 16 bits; convert it to PNG"
            )
        # Pillow would clip to 255.
        image = Image.fromarray((deep >> 8).astype(np.uint8))
    return image.convert("RGB")


def wxh(shape: tuple[int, ...]) -> str:
    """(H, W) as "WxH", for messages."""
    return f"{shape[1]}x{shape[0]}"


def encode_png(array: np.ndarray, compression: int = 6) -> bytes:
    """A PNG file's bytes of uint8 [H, W] (class ids or grey) or [H, W, 3] (RGB).

    Args:
      compression: 0 (fast) to 9 (small).
    """
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f"expected uint8 [H, W] or [H, W, 3], got {array.dtype} {list(array.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG", compress_level=compression)
    return buffer.getvalue()


def write_png(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes uint8 [H, W] or [H, W, 3] RGB as PNG; the file appears whole or not at all."""
    data = encode_png(array)
    with write_atomically(path) as aside:
        aside.write_bytes(data)


def colourise(mask: np.ndarray, palette: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """A mask in its classes' colours: uint8 [H, W, 3]; 255 (ignore) is black.

    Args:
      mask: uint8 [H, W].
      palette: an RGB triple (0..255) per class.

    Raises:
      InputError: the mask has an id that the palette has no colour for.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    unknown = np.setdiff1d(mask, np.arange(len(palette)))
    unknown = unknown[unknown != IGNORE]
    if unknown.size:
        raise InputError(f"a mask has the ids {unknown.tolist()[:10]}, expected 0..{len(palette) - 1} or {IGNORE}")
    table[IGNORE] = 0
    return table[mask]


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: Sequence[Sequence[int]] | np.ndarray, alpha: float = 0.5
) -> np.ndarray:
    """An image tinted by class: uint8 [H, W, 3].

    Pixels with 255, and those of a class whose colour is black (a background), keep the image's colour. Where a
    class borders on another one, or on 255, its outermost pixel shows the full colour of the class, so that
    regions of similar colours stay apart.

    Args:
      image: uint8 [H, W, 3].
      mask: uint8 [H, W].
      alpha: share of the class's colour, 0..1.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image {list(image.shape)} and mask {list(mask.shape)} differ in size")
    colours = colourise(mask, palette)
    blended = image + alpha * (colours.astype(np.float32) - image)
    shown = np.where(_borders(mask)[:, :, None], colours, np.rint(blended).astype(np.uint8))
    plain = (mask == IGNORE) | ~colours.any(-1)
    return np.where(plain[:, :, None], image, shown)


def _borders(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels with a 4-neighbour of another id."""
    border = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        differ = np.diff(mask.astype(np.int16), axis=axis) != 0
        before, after = np.split(border, [-1], axis)[0], np.split(border, [1], axis)[1]
        before |= differ
        after |= differ
    return border


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 image [H, W, 3] or [H, W] at `size` (height, width).

    Per axis: area average where it shrinks (every input pixel counts, so nothing aliases), bilinear where it
    grows.
    """
    height, width = size
    shrunk = min(height, image.shape[0]), min(width, image.shape[1])
    # Two calls: OpenCV takes one method for both axes, and its area average leaves gaps where an axis grows.
    for (h, w), method in ((shrunk, cv2.INTER_AREA), ((height, width), cv2.INTER_LINEAR)):
        if (h, w) != image.shape[:2]:
            image = cv2.resize(image, (w, h), interpolation=method)
    return image


def resize_label(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 mask [H, W] at `size` (height, width): the id of the pixel nearest to each new centre."""
    height, width = size
    # Plain INTER_NEAREST takes the pixel below the upper left corner, a shift of up to half a pixel.
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
