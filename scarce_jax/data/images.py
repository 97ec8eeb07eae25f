"""Reading, writing and resizing images and masks."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageOps

from scarce_jax.data.decoding import check_file, check_lossless, checked_header, naming_faults, opened
from scarce_jax.data.deep import deep_values, to_bytes
from scarce_jax.data.files import write_atomically
from scarce_jax.data.image_files import FileError


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image file as uint8 [H, W, 3] RGB; every command reads images by this function.

    Formats are those of `decoding.FORMATS`, told by content, whatever the suffix. The EXIF rotation is applied. Grey,
    palette, CMYK, YCbCr and LAB become RGB; colour profiles and gamma are ignored. What a file has beside grey or
    colours is left out: transparency of any kind, so that a hidden pixel has its stored colour, often black; a fourth
    band of a TIFF marked as RGB; the further pictures of a JPEG. More than 8 bits a sample: see `deep.to_bytes`.

    Raises:
      InputError: the file is missing, empty, truncated or not an image.
      FileError: it is whole, and cannot be used: more than `decoding.MAX_PIXELS` pixels, several pages or frames, bands
        of unknown meaning, or deep values of which the scale is not known.
    """
    check_file(path)
    with naming_faults(path):
        header = checked_header(path)
        if header is not None and header.deep:
            pixels = to_bytes(deep_values(path, header), path)
            return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
        with opened(path) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_encoded(path: str | os.PathLike) -> tuple[bytes, tuple[int, int]]:
    """Reads an image file as an encoded, upright 8-bit RGB image (PNG or JPEG), and its (height, width).

    `decode_image` gives the pixels of `read_image`, bit for bit: if it does so with the bytes of the file, these are
    returned, so that no JPEG is compressed twice; otherwise the pixels as PNG. Raises the errors of `read_image`.
    """
    pixels = read_image(path)
    data = pathlib.Path(path).read_bytes()
    if data.startswith((b"\x89PNG", b"\xff\xd8")):
        with contextlib.suppress(ValueError):
            if np.array_equal(decode_image(data), pixels):
                return data, pixels.shape[:2]
    return encode_png(pixels, compression=3), pixels.shape[:2]


def decode_image(data: bytes) -> np.ndarray:
    """Decodes what `read_encoded` returned: uint8 [H, W, 3] RGB.

    Raises:
      ValueError: the data are damaged, or no 8-bit RGB image.
    """
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError("no image") from error
    if decoded is None or decoded.dtype != np.uint8 or decoded.ndim != 3 or decoded.shape[2] != 3:
        raise ValueError("no 8-bit RGB image")
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def read_mask(path: str | os.PathLike, *, two_bytes: bool = False) -> np.ndarray:
    """Reads the ids [H, W] of a mask file; see `read_ids`."""
    return read_ids(path, two_bytes=two_bytes)[0]


def read_ids(path: str | os.PathLike, *, two_bytes: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads the ids of a mask file, and its palette; every command reads masks by this function.

    The ids are the values of a grey file of 1 to 32 bits, whole numbers also as floats; the palette indices of a
    palette file, whatever its transparency; and the common value of the channels of a lossless WebP, a format without
    grey. The EXIF rotation is applied.

    Args:
      path: the file.
      two_bytes: an RGB file without blue holds ids too, red + 256 * green.

    Returns:
      The ids, uint8 [H, W], or int64 if one is not in 0..255; and the RGB colours of the indices of a palette file,
      uint8 [N, 3], or None.

    Raises:
      InputError: the file is missing, empty, truncated or not an image.
      FileError: its pixels are colours or fractions, its compression is lossy, or as in `read_image`.
    """
    check_file(path)
    with naming_faults(path):
        header = checked_header(path)
        if header is not None and header.deep:
            if header.bands > 1:
                raise _colours(path, f"{header.bits} bits, {header.bands} bands", False)
            return _whole(deep_values(path, header), path), None
        with opened(path) as image:
            image.load()
            check_lossless(image, path)
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.array(image)
            if image.mode == "P":
                return pixels, np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            if image.mode in ("1", "L"):
                # Pillow scales grey of 2 and 4 bits, which PNG optimisers write, to 0..255; this undoes it.
                scaled = image.mode == "L" and header is not None and header.bits < 8
                return (pixels // (255 // (2**header.bits - 1)) if scaled else pixels.astype(np.uint8)), None
            if two_bytes and image.mode == "RGB" and not pixels[..., 2].any():
                return pixels[..., 0] + 256 * pixels[..., 1].astype(np.int64), None
            colours = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1]
            equal = image.mode in ("LA", "RGB", "RGBA") and (colours == colours[..., :1]).all()
            if image.format == "WEBP" and equal and (pixels[..., 3:] == 255).all():
                return colours[..., 0].copy(), None
            raise _colours(path, f"mode {image.mode}", equal)


def _colours(path: str | os.PathLike, kind: str, equal: bool) -> FileError:
    advice = "convert its colours to ids first"
    if equal:
        advice = "keep one of its equal channels: Image.open(path).getchannel(0).save(path)"
    expected = "one class id per pixel (8-bit grey or palette)"
    return FileError("colour-mask", path, f"the mask is a colour image ({kind})", expected, advice)


def _whole(values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Deep values [H, W] as ids."""
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        found, expected = "the mask has float pixels that are no whole numbers", "one class id per pixel"
        raise FileError("not-ids", path, found, expected, "round the values to class ids, and save them as 8-bit PNG")
    narrow = values.min() >= 0 and values.max() <= 255
    return values.astype(np.uint8 if narrow else np.int64)


def wxh(shape: tuple[int, ...]) -> str:
    """Formats (H, W) as "WxH" for messages."""
    return f"{shape[1]}x{shape[0]}"


def encode_png(array: np.ndarray, compression: int = 6, palette: np.ndarray | None = None) -> bytes:
    """Encodes uint8 [H, W] (class ids or grey) or [H, W, 3] (RGB) as PNG.

    Args:
      array: the pixels.
      compression: 0 (fast) to 9 (small).
      palette: RGB by id, uint8 [256, 3]; the ids are then stored as palette indices, and shown in their colours.
    """
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(f"expected uint8 [H, W] or [H, W, 3], got {array.dtype} {list(array.shape)}")
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(array))
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(buffer, format="PNG", compress_level=compression)
    return buffer.getvalue()


def write_png(path: str | os.PathLike, array: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Writes uint8 [H, W] or [H, W, 3] (RGB) as a PNG file, atomically; `palette` as in `encode_png`."""
    data = encode_png(array, palette=palette)
    with write_atomically(path) as aside:
        aside.write_bytes(data)


Fit = Literal["stretch", "pad", "native"]
"""How an image is brought to a size: see `fitted`."""


def fitted(native: tuple[int, int], size: tuple[int, int] | None, fit: Fit) -> tuple[int, int]:
    """The size (height, width) to which an image is resized before it is padded to `size` at the bottom and right.

    Args:
      native: (height, width) of the image.
      size: (height, width) of the result; None keeps the native size.
      fit: "stretch" gives `size` itself, whatever the proportions of the image. The others keep the proportions: "pad"
        gives the largest size that fits in `size`; "native" changes no image that fits, and makes larger ones fit.
    """
    if size is None:
        return native
    if fit == "stretch":
        return size
    factor = min(size[0] / native[0], size[1] / native[1])
    if fit == "native":
        factor = min(factor, 1.0)
    height, width = (min(most, max(1, round(length * factor))) for most, length in zip(size, native, strict=True))
    return height, width


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
