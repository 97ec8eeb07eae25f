"""Image and mask files of every kind that people bring, and what reading them must give.

A writer takes a path without suffix, the content and random numbers, and returns the file's path and what must be read:
an array, None if the file must be refused, or ... if the pixels are not known exactly.
"""

from __future__ import annotations

import io
import pathlib
import struct
import zlib
from collections.abc import Callable
from types import EllipsisType

import cv2
import numpy as np
from PIL import Image

Expected = np.ndarray | None | EllipsisType
Writer = Callable[[pathlib.Path, np.ndarray, np.random.Generator], tuple[pathlib.Path, Expected]]

COLOURS = np.array([(0, 0, 0), (250, 10, 10), (10, 250, 10)], np.uint8)
ORIENTATION = 0x0112
# What a viewer does with the stored pixels (EXIF 2.32).
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}


def grey(rgb: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of three equal channels."""
    return np.repeat(rgb[..., :1], 3, 2)


def tiff(
    array: np.ndarray, photometric: int, *, extra: tuple[int, ...] = (), separate: bool = False, bits: int = 0
) -> bytes:
    """An uncompressed TIFF of [H, W] or [H, W, bands], as many tools write them and Pillow does not.

    Args:
      array: the pixels; if `bits` is 4, two of them in each byte of a row.
      photometric: 1 for grey, 2 for RGB.
      extra: the meaning of further bands: 0 unknown, 1 and 2 transparency.
      separate: the bands one after the other.
      bits: per sample, if not those of the array.
    """
    height, width = array.shape[0], array.shape[1] * 8 * array.itemsize // (bits or 8 * array.itemsize)
    bands = 1 if array.ndim == 2 else array.shape[2]
    pixels = np.ascontiguousarray(np.moveaxis(array, -1, 0) if separate and array.ndim == 3 else array).tobytes()
    strips = bands if separate else 1
    size, tail = len(pixels) // strips, b""
    place = 8 + len(pixels)
    entries = []

    def add(tag: int, kind: int, values: tuple[int, ...]) -> None:
        nonlocal tail
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            packed, tail = struct.pack("<I", place + len(tail)), tail + packed
        entries.append(struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0"))

    add(256, 4, (width,))
    add(257, 4, (height,))
    add(258, 3, (bits or 8 * array.itemsize,) * bands)
    add(259, 3, (1,))
    add(262, 3, (photometric,))
    add(273, 4, tuple(8 + k * size for k in range(strips)))
    add(277, 3, (bands,))
    add(278, 4, (height,))
    add(279, 4, (size,) * strips)
    add(284, 3, (2 if separate else 1,))
    if extra:
        add(338, 3, extra)
    add(339, 3, ({"u": 1, "i": 2, "f": 3}[array.dtype.kind],) * bands)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", place + len(tail)) + pixels + tail + directory


def few_bits(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 2 or 4 bits, which Pillow does not write."""
    height, width = values.shape
    padded = np.pad(values, ((0, 0), (0, -width % (8 // bits))))
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    rows = (padded.reshape(height, -1, 8 // bits) << shifts).sum(-1).astype(np.uint8)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def palette_image(ids: np.ndarray, colours: np.ndarray) -> Image.Image:
    picture = Image.fromarray(ids).convert("P")
    picture.putdata(ids.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    return picture


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def _writer(suffix: str, make: Callable[[np.ndarray, np.random.Generator], tuple[bytes, Expected]]) -> Writer:
    def write(stem: pathlib.Path, content: np.ndarray, random: np.random.Generator) -> tuple[pathlib.Path, Expected]:
        data, expected = make(content, random)
        path = stem.with_name(stem.name + suffix)
        path.write_bytes(data)
        return path, expected

    return write


def _saved(
    form: str, convert: Callable[[np.ndarray], Image.Image], expected: Callable[[np.ndarray], Expected], **options
):
    return lambda a, random: (encoded(convert(a), form, **options), expected(a))


def _deep(suffix: str, convert: Callable[[np.ndarray], np.ndarray], expected: Callable[[np.ndarray], Expected]):
    return lambda a, random: (cv2.imencode(suffix, convert(a))[1].tobytes(), expected(a))


def _alpha(a: np.ndarray) -> np.ndarray:
    """Half of the image hidden."""
    return np.where(np.arange(a.shape[1]) % 2, 255, 0).astype(np.uint8)[None].repeat(a.shape[0], 0)


def _rotated(form: str, exact: bool):
    def make(a: np.ndarray, random: np.random.Generator) -> tuple[bytes, Expected]:
        orientation = int(random.integers(1, 9))
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        # Square, so that a mask drawn beside it has its size.
        data = encoded(Image.fromarray(a), form, exif=exif, **({} if exact else {"quality": 95, "subsampling": 0}))
        return data, TURNS[orientation](a) if exact else ...

    return make


def _frames(form: str, expected: Expected):
    return lambda a, random: (
        encoded(Image.fromarray(a), form, save_all=True, append_images=[Image.fromarray(255 - a)]),
        expected,
    )


rgb, same, refused, unknown = Image.fromarray, lambda a: a, lambda a: None, lambda a: ...
bgr = lambda a: a[..., ::-1]
full = lambda a: a.astype(np.uint16) * 257
level = lambda a: np.where(a.max() >= 64, a, a + 128).astype(np.uint8)  # deep files must not be nearly black

IMAGES: dict[str, Writer] = {
    "png": _writer(".png", _saved("PNG", rgb, same)),
    "png-upper-suffix": _writer(".PNG", _saved("PNG", rgb, same)),
    "png-called-jpg": _writer(".jpg", _saved("PNG", rgb, same)),
    "png-grey": _writer(".png", _saved("PNG", lambda a: rgb(a[..., 0]), grey)),
    "png-alpha": _writer(".png", _saved("PNG", lambda a: rgb(np.dstack([a, _alpha(a)])), same)),
    "png-grey-alpha": _writer(".png", _saved("PNG", lambda a: rgb(np.dstack([a[..., 0], _alpha(a)])), grey)),
    "png-one-hidden-colour": _writer(
        ".png", lambda a, random: (encoded(rgb(a), "PNG", transparency=tuple(a[0, 0].tolist())), a)
    ),
    "png-palette": _writer(
        ".png", lambda a, random: (encoded(palette_image(a[..., 0] % 3, COLOURS), "PNG"), COLOURS[a[..., 0] % 3])
    ),
    "png-palette-transparent": _writer(
        ".png",
        lambda a, random: (
            encoded(palette_image(a[..., 0] % 3, COLOURS), "PNG", transparency=1),
            COLOURS[a[..., 0] % 3],
        ),
    ),
    "png-1-bit": _writer(
        ".png", _saved("PNG", lambda a: rgb(a[..., 0] > 99), lambda a: grey((a > 99) * np.uint8(255)))
    ),
    "png-2-bit": _writer(".png", lambda a, random: (few_bits(a[..., 0] >> 6, 2), grey((a >> 6) * np.uint8(85)))),
    "png-4-bit": _writer(".png", lambda a, random: (few_bits(a[..., 0] >> 4, 4), grey((a >> 4) * np.uint8(17)))),
    "png-16-bit": _writer(".png", _deep(".png", lambda a: full(level(a))[..., 0], lambda a: grey(level(a)))),
    "png-16-bit-colours": _writer(".png", _deep(".png", lambda a: bgr(full(level(a))), level)),
    "png-16-bit-alpha": _writer(
        ".png", _deep(".png", lambda a: np.dstack([bgr(full(level(a))), full(_alpha(a))]), level)
    ),
    "png-exif": _writer(".png", _rotated("PNG", True)),
    "jpg": _writer(".jpg", _saved("JPEG", rgb, unknown, quality=90)),
    "jpg-progressive": _writer(".jpeg", _saved("JPEG", rgb, unknown, progressive=True, subsampling=0)),
    "jpg-grey": _writer(".JPG", _saved("JPEG", lambda a: rgb(a[..., 0]), unknown)),
    "jpg-cmyk": _writer(".jpg", _saved("JPEG", lambda a: rgb(a).convert("CMYK"), unknown)),
    "jpg-exif": _writer(".jpg", _rotated("JPEG", False)),
    "jpg-of-a-phone": _writer(".jpg", _frames("MPO", ...)),
    "bmp": _writer(".bmp", _saved("BMP", rgb, same)),
    "tif": _writer(".tif", _saved("TIFF", rgb, same)),
    "tif-lzw": _writer(".tiff", _saved("TIFF", rgb, same, compression="tiff_lzw")),
    "tif-cmyk": _writer(".tif", _saved("TIFF", lambda a: rgb(a).convert("CMYK"), same)),
    "tif-lab": _writer(".tif", _saved("TIFF", lambda a: Image.new("LAB", a.shape[1::-1], (150, 20, 30)), unknown)),
    "tif-near-infrared": _writer(".tif", lambda a, random: (tiff(np.dstack([a, a[..., :1]]), 2, extra=(0,)), a)),
    "tif-five-bands-with-rgb": _writer(
        ".tif", lambda a, random: (tiff(np.dstack([a, a[..., :2]]), 2, extra=(0, 0)), a)
    ),
    "tif-16-bit": _writer(".tif", _deep(".tif", lambda a: full(level(a))[..., 0], lambda a: grey(level(a)))),
    "tif-16-bit-colours": _writer(".tif", _deep(".tif", lambda a: bgr(full(level(a))), level)),
    "tif-float": _writer(
        ".tif", lambda a, random: (tiff((level(a)[..., 0] / 255).astype(np.float32), 1), grey(level(a)))
    ),
    "tif-double-colours": _writer(".tif", lambda a, random: (tiff(level(a) / 255, 2), level(a))),
    "gif": _writer(
        ".gif", lambda a, random: (encoded(palette_image(a[..., 0] % 3, COLOURS), "GIF"), COLOURS[a[..., 0] % 3])
    ),
    "webp": _writer(".webp", _saved("WEBP", rgb, unknown)),
    "webp-lossless": _writer(".webp", _saved("WEBP", rgb, same, lossless=True)),
    # Refused.
    "png-8-bits-in-16": _writer(".png", _deep(".png", lambda a: (a[..., 0] | 1).astype(np.uint16), refused)),
    "png-12-bits-in-16": _writer(".png", _deep(".png", lambda a: (a[..., 0] | 1).astype(np.uint16) * 16, refused)),
    "tif-12-bits-colours": _writer(".tif", _deep(".tif", lambda a: (a | 1).astype(np.uint16) * 16, refused)),
    "tif-integers": _writer(".tif", _deep(".tif", lambda a: (a[..., 0] | 1).astype(np.int32), refused)),
    "tif-float-255": _writer(".tif", _deep(".tif", lambda a: (a[..., 0] | 2).astype(np.float32), refused)),
    "tif-float-nan": _writer(".tif", _deep(".tif", lambda a: np.where(a[..., 0] > 9, 1, np.nan).astype("f4"), refused)),
    "tif-five-bands": _writer(".tif", lambda a, random: (tiff(np.dstack([a, a[..., :2]]), 1), None)),
    "tif-two-bands": _writer(".tif", lambda a, random: (tiff(a[..., :2], 1), None)),
    "tif-16-bit-planes": _writer(".tif", lambda a, random: (tiff(full(level(a)), 2, separate=True), None)),
    "tif-pages": _writer(".tif", _frames("TIFF", None)),
    "gif-animated": _writer(".gif", _frames("GIF", None)),
    "webp-animated": _writer(".webp", _frames("WEBP", None)),
    "png-animated": _writer(".png", _frames("PNG", None)),
    "heic-called-jpg": _writer(".jpg", lambda a, random: (b"\0\0\0\x18ftypheic" + bytes(40), None)),
    "empty": _writer(".jpg", lambda a, random: (b"", None)),
    "text": _writer(".png", lambda a, random: (b"<html>not found</html>", None)),
    "cut-png": _writer(".png", lambda a, random: (encoded(rgb(a), "PNG")[:-40], None)),
    "cut-jpg": _writer(".jpg", lambda a, random: (encoded(rgb(a), "JPEG")[:-60], None)),
}

MASKS: dict[str, Writer] = {
    "png": _writer(".png", _saved("PNG", rgb, same)),
    "png-palette": _writer(".png", _saved("PNG", lambda m: palette_image(m, COLOURS), same)),
    "png-palette-transparent": _writer(
        ".png", _saved("PNG", lambda m: palette_image(m, COLOURS), same, transparency=0)
    ),
    "png-1-bit": _writer(".png", _saved("PNG", lambda m: rgb(m > 0), lambda m: (m > 0).astype(np.uint8))),
    "png-2-bit": _writer(".png", lambda m, random: (few_bits(m, 2), m)),
    "png-4-bit": _writer(".PNG", lambda m, random: (few_bits(m, 4), m)),
    "png-16-bit": _writer(".png", _deep(".png", lambda m: m.astype(np.uint16), same)),
    "png-exif": _writer(".png", _rotated("PNG", True)),
    "tif": _writer(".tif", _saved("TIFF", rgb, same, compression="tiff_deflate")),
    "tif-integers": _writer(".tif", _deep(".tif", lambda m: m.astype(np.int32), same)),
    "tif-float": _writer(".tif", _deep(".tif", lambda m: m.astype(np.float32), same)),
    "tif-double": _writer(".tiff", _deep(".tiff", lambda m: m.astype(np.float64), same)),
    "tif-4-bit": _writer(
        ".tif",
        lambda m, random: (tiff(m[:, ::2] << 4 | m[:, 1::2], 1, bits=4), m) if m.shape[1] % 2 == 0 else (tiff(m, 1), m),
    ),
    "bmp": _writer(".bmp", _saved("BMP", rgb, same)),
    "bmp-palette": _writer(".bmp", _saved("BMP", lambda m: palette_image(m, COLOURS), same)),
    "gif": _writer(".gif", _saved("GIF", lambda m: palette_image(m, COLOURS), same)),
    "webp-lossless": _writer(".webp", _saved("WEBP", rgb, same, lossless=True)),
    # Refused.
    "webp": _writer(".webp", _saved("WEBP", rgb, refused)),
    "jpg": _writer(".jpg", _saved("JPEG", rgb, refused)),
    "tif-jpeg": _writer(".tif", _saved("TIFF", rgb, refused, compression="jpeg")),
    "tif-pages": _writer(".tif", _frames("TIFF", None)),
    "tif-fractions": _writer(".tif", _deep(".tif", lambda m: m / np.float32(2.5) + np.float32(0.1), refused)),
    "colours": _writer(".png", _saved("PNG", lambda m: rgb(COLOURS[m]), refused)),
    "equal-channels": _writer(".png", _saved("PNG", lambda m: rgb(np.repeat(m[..., None], 3, 2)), refused)),
    "equal-channels-alpha": _writer(".png", _saved("PNG", lambda m: rgb(np.dstack([m, m, m, m])), refused)),
    "grey-alpha": _writer(".png", _saved("PNG", lambda m: rgb(np.dstack([m, m])), refused)),
    "colours-16-bit": _writer(".png", _deep(".png", lambda m: COLOURS[m].astype(np.uint16) * 257, refused)),
    "webp-colours": _writer(".webp", _saved("WEBP", lambda m: rgb(COLOURS[m]), refused, lossless=True)),
    "empty": _writer(".png", lambda m, random: (b"", None)),
    "cut": _writer(".png", lambda m, random: (encoded(rgb(m), "PNG")[:-30], None)),
}
