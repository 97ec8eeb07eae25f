"""Reading, writing, colouring and resizing images and masks."""

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

    The EXIF rotation is applied. Grey, palette and CMYK are converted to RGB. Transparency is ignored. Pixels of 16
    bits keep their upper 8 bits. The first frame of an animation is read.

    Raises:
      InputError: the file is missing, empty, truncated or not an image, or its pixels have 32 bits.
    """
    with _opened(path) as image:
        return np.array(_to_rgb(image, path))


def read_encoded(path: str | os.PathLike) -> tuple[bytes, tuple[int, int]]:
    """Reads an image file as an encoded, upright 8-bit RGB image (PNG or JPEG), and its (height, width).

    If the file is such an image, its bytes are returned unchanged, so that no JPEG is compressed twice; otherwise the
    result of `read_image` as PNG. Raises the errors of `read_image`.
    """
    with _opened(path) as image:
        upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        plain = image.format == "JPEG" or (image.format == "PNG" and bit_depth(path) == 8)
        if upright and plain and image.mode == "RGB" and "transparency" not in image.info:
            return pathlib.Path(path).read_bytes(), (image.height, image.width)
        rgb = np.array(_to_rgb(image, path))
    return encode_png(rgb, compression=3), rgb.shape[:2]


def read_mask(path: str | os.PathLike, *, two_bytes: bool = False) -> np.ndarray:
    """Reads the ids of a mask file: uint8 [H, W], or int64 [H, W] if the file has more than 8 bits per pixel.

    The ids are the values of a grey file, the palette indices of a palette file, and 0 and 1 in a 1-bit file. The EXIF
    rotation is applied.

    Args:
      path: the file.
      two_bytes: an RGB file without blue holds ids too, red + 256 * green.

    Raises:
      InputError: the file is missing, empty, truncated or not an image, its pixels are colours, or its compression is
        lossy.
    """
    with _opened(path) as image:
        if image.format in _LOSSY:
            raise InputError(
                f"{path}: the mask is a {image.format} file, whose compression changes ids; expected class ids in a PNG"
            )
        if two_bytes and image.mode == "RGB":
            colours = np.array(ImageOps.exif_transpose(image)).astype(np.int64)
            if not colours[..., 2].any():
                return colours[..., 0] + 256 * colours[..., 1]
        if image.mode not in _ID_MODES:
            raise InputError(
                f"{path}: the mask is a colour image (mode {image.mode}), expected one class id per pixel (8-bit grey "
                "or palette); convert its colours to ids first"
            )
        ids = np.array(ImageOps.exif_transpose(image)).astype(np.int64 if image.mode.startswith("I") else np.uint8)
        # Pillow scales grey PNGs of 2 and 4 bits, which PNG optimisers write, to 0..255; this undoes it.
        depth = bit_depth(path) if image.mode == "L" and image.format == "PNG" else 8
        return ids // (255 // (2**depth - 1)) if depth < 8 else ids


def bit_depth(path: str | os.PathLike) -> int:
    """Reads the bits per sample of a PNG file from its header, where it follows 24 bytes of other fields."""
    with open(path, "rb") as file:
        return file.read(25)[24]


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Yields a decoded PIL image. Any error of decoding, also one raised inside the block, becomes an InputError."""
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected an image file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty (0 bytes), expected an image")
    try:
        # Pillow warns of large images and odd metadata, which are no errors.
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
    # Decoders raise almost any exception for damaged files: OSError, SyntaxError, struct.error, IndexError.
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
    """Formats (H, W) as "WxH" for messages."""
    return f"{shape[1]}x{shape[0]}"


def encode_png(array: np.ndarray, compression: int = 6) -> bytes:
    """Encodes uint8 [H, W] (class ids or grey) or [H, W, 3] (RGB) as PNG.

    Args:
      array: the pixels.
      compression: 0 (fast) to 9 (small).
    """
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f"expected uint8 [H, W] or [H, W, 3], got {array.dtype} {list(array.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG", compress_level=compression)
    return buffer.getvalue()


def write_png(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes uint8 [H, W] or [H, W, 3] (RGB) as a PNG file, atomically."""
    data = encode_png(array)
    with write_atomically(path) as aside:
        aside.write_bytes(data)


def colourise(mask: np.ndarray, palette: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """Colours a mask by class: uint8 [H, W, 3]; void pixels (255) are black.

    Args:
      mask: uint8 [H, W].
      palette: an RGB triple (0..255) per class.

    Raises:
      InputError: the palette has no colour for an id of the mask.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    unknown = np.setdiff1d(mask, [*range(len(palette)), IGNORE])
    if unknown.size:
        raise InputError(f"a mask has the ids {unknown.tolist()[:10]}, expected 0..{len(palette) - 1} or {IGNORE}")
    table[IGNORE] = 0
    return table[mask]


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: Sequence[Sequence[int]] | np.ndarray, alpha: float = 0.5
) -> np.ndarray:
    """Tints an image by class: uint8 [H, W, 3].

    Void pixels (255) and pixels of a class whose colour is black (a background) keep the image's colour. Pixels at the
    border of a region have the full colour of their class, so that regions of similar colours can be told apart.

    Args:
      image: uint8 [H, W, 3].
      mask: uint8 [H, W].
      palette: an RGB triple (0..255) per class.
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
    neighbours = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return cv2.erode(mask, neighbours) != cv2.dilate(mask, neighbours)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a uint8 image [H, W, 3] or [H, W] to `size` (height, width).

    An axis that shrinks is averaged by area, so that nothing aliases; an axis that grows is interpolated linearly.
    """
    height, width = size
    shrunk = min(height, image.shape[0]), min(width, image.shape[1])
    # Two calls, because OpenCV uses one method for both axes, and its area average does not interpolate.
    for (h, w), method in ((shrunk, cv2.INTER_AREA), ((height, width), cv2.INTER_LINEAR)):
        if (h, w) != image.shape[:2]:
            image = cv2.resize(image, (w, h), interpolation=method)
    return image


def resize_label(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a uint8 mask [H, W] to `size` (height, width): each pixel takes the nearest pixel's id."""
    height, width = size
    # INTER_NEAREST would shift the mask by up to half a pixel.
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
