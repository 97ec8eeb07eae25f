"""Image files in, image files out, and resizing."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image, ImageOps

from scarce_jax.data.files import write_atomically
from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError

_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_WHITE = (255, 255, 255, 255)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Any image file as uint8 [H, W, 3] RGB, the right way up.

    The EXIF rotation is applied. Grey, palette and CMYK become RGB. Transparent pixels are laid over white,
    as a viewer on a page shows them (what is stored below them is arbitrary). 16 bits are scaled to 8: 65535
    is 255. Of an animation the first frame is read.

    Raises:
      InputError: the file is missing, empty, cut off, no image, or has pixels without a known range (32-bit).
    """
    with _opened(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in _DEEP_MODES:
            grey = _to_eight_bits(np.asarray(image), path)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if image.mode == "F":
            raise InputError(f"{path}: 32-bit float pixels, expected 8 or 16 bits; convert it to PNG")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
        return np.array(image.convert("RGB"))


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """A label mask as uint8 [H, W]: the stored 8-bit ids; of a palette file its indices, not its colours.

    Nothing is rotated or scaled: a mask is data. 1-bit masks give 0 and 1.

    Raises:
      InputError: the file is missing, empty, cut off or no image, or its pixels are not single 8-bit ids.
    """
    with _opened(path) as image:
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        if image.mode not in ("L", "P"):
            raise InputError(
                f"{path}: pixels of kind {image.mode}, expected one 8-bit class id each "
                "(grey or palette PNG); turn colours into class ids first"
            )
        # Pillow stretches grey PNGs of 2 and 4 bits, which optimisers of PNG files make, to 0..255: undo it.
        depth = _png_bits(path) if image.mode == "L" and image.format == "PNG" else 8
        return np.array(image) // (255 // (2**depth - 1))


def _png_bits(path: str | os.PathLike) -> int:
    """Bits per sample, from the header that every PNG file begins with."""
    with open(path, "rb") as file:
        return file.read(25)[24]


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """A decoded PIL image; every fault of the file, also one found inside the block, is an InputError."""
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected an image file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty (0 bytes), expected an image")
    try:
        with Image.open(path) as image:
            image.load()
            yield image
    except InputError:
        raise
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image, or of an unknown format; replace or remove it") from error
    # Decoders of damaged files raise nearly anything: OSError, SyntaxError, struct.error, IndexError.
    except Exception as error:
        raise InputError(
            f"{path}: cannot be decoded ({type(error).__name__}: {error}); replace or remove it"
        ) from error


def _to_eight_bits(deep: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    deep = deep.astype(np.int64)
    if deep.min() < 0 or deep.max() > 65535:
        raise InputError(
            f"{path}: 32-bit pixels from {deep.min()} to {deep.max()}, expected 8 or 16 bits; convert it to PNG"
        )
    return ((deep * 255 + 32767) // 65535).astype(np.uint8)


def encode_png(array: np.ndarray) -> bytes:
    """A PNG file's bytes of uint8 [H, W] (class ids or grey) or [H, W, 3] (RGB)."""
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f"expected uint8 [H, W] or [H, W, 3], got {array.dtype} {list(array.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG")
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
