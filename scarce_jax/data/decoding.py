"""Opening image files: the formats, their headers, and one message for each way in which a file cannot be read."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import stat
import struct
import warnings
from collections.abc import Iterator
from typing import BinaryIO

from PIL import ExifTags, Image, TiffImagePlugin

from scarce_jax.data.image_files import FileError
from scarce_jax.errors import InputError, printable

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
"""What Pillow may open. It knows many more, of which some start other programs (EPS starts Ghostscript)."""

MAX_PIXELS = 160_000_000
"""Largest image that is read: 480 MB of RGB. The largest sensors of photography have 151 megapixels."""

_TAGS = (254, 255, 256, 257, 258, 262, 274, 277, 284, 338, 339)
"""Tags of TIFF 6.0 that `Header.tags` has: NewSubfileType, SubfileType, ImageWidth, ImageLength, BitsPerSample,
PhotometricInterpretation, Orientation, SamplesPerPixel, PlanarConfiguration, ExtraSamples, SampleFormat."""

_STARTS = {
    b"8BPS": "a Photoshop file", b"%PDF": "a PDF file", b"%!PS": "a PostScript file", b"<svg": "an SVG file",
    b"\0\0\0\x0cjP": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL": "JPEG XL",
    b"v/1\x01": "OpenEXR", b"\x93NUMPY": "a NumPy file", b"\x89HDF": "an HDF5 file", b"P5": "a PGM file",
    b"P6": "a PPM file", b"<htm": "a web page", b"<!DO": "a web page", b"version https://git-lfs": "a Git LFS pointer",
}  # fmt: skip
"""First bytes of files that are no images of `FORMATS` -> what they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of a PNG or TIFF file says, which Pillow does not tell.

    Attributes:
      format: "PNG" or "TIFF".
      size: (height, width), as stored.
      bits: per sample.
      bands: samples per pixel.
      kind: "uint", "int" or "float".
      tags: of a TIFF, number -> value; empty for PNG.
    """

    format: str
    size: tuple[int, int]
    bits: int
    bands: int
    kind: str = "uint"
    tags: dict[int, object] = dataclasses.field(default_factory=dict)

    @property
    def deep(self) -> bool:
        """Whether samples are more than bytes."""
        return self.bits > 8 or self.kind != "uint"


@contextlib.contextmanager
def naming_faults(path: str | os.PathLike) -> Iterator[None]:
    """Turns every error of decoding a file inside the block into an InputError with its path."""
    try:
        # Pillow warns of large images and odd metadata, which are no errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(path, f"more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} megapixels") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{printable(path)}: cannot be decoded (not an image, or of an unknown format); {_foreign(path)}"
        ) from error
    except PermissionError as error:
        raise InputError(f"{printable(path)}: cannot be opened ({error.strerror}); check its permissions") from error
    # Decoders raise almost any exception for damaged files: OSError, SyntaxError, struct.error, IndexError.
    except Exception as error:
        raise InputError(
            f"{printable(path)}: cannot be decoded ({type(error).__name__}: {error}); it is damaged or cut off, "
            "replace or remove it"
        ) from error


def check_file(path: str | os.PathLike) -> None:
    """Raises InputError unless the path is a file with content, which can be opened."""
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise InputError(f"{printable(path)}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: the name has a zero byte.
        raise InputError(f"{printable(path)}: cannot be opened ({getattr(error, 'strerror', error)})") from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{printable(path)}: a folder, expected an image file")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{printable(path)}: no regular file, expected an image file")
    if found.st_size == 0:
        raise InputError(f"{printable(path)}: empty (0 bytes), expected an image")


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Yields a PIL image whose pixels are not decoded yet, after its size and the number of its frames were checked.

    A JPEG of several pictures (MPO: previews, depth maps) counts as its first one.
    """
    with Image.open(path, formats=FORMATS) as image:
        _check_size(path, (image.height, image.width))
        if image.format not in ("MPO", "TIFF") and getattr(image, "is_animated", False):
            raise _several(path, f"an animation of {image.n_frames} frames")
        yield image


def _check_size(path: str | os.PathLike, size: tuple[int, int]) -> None:
    """Raises FileError if an image of this (height, width) is too large."""
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(path, f"{size[1]} x {size[0]} pixels, {size[0] * size[1] / 1e6:.0f} megapixels")


def _too_large(path: str | os.PathLike, found: str) -> FileError:
    expected = f"at most {MAX_PIXELS / 1e6:.0f} megapixels"
    advice = "cut it into tiles, and its mask alike, or make it smaller: magick FILE -crop 4096x4096 tile_%d.png"
    return FileError("unfit-file", path, found, expected, advice)


def _several(path: str | os.PathLike, found: str) -> FileError:
    advice = "write each to a file of its own, and move this one away: magick FILE NAME-%d.png"
    return FileError("unfit-file", path, found, "one picture in a file", advice)


def _foreign(path: str | os.PathLike) -> str:
    """What to do with a file of a format that is not read."""
    with open(path, "rb") as file:
        start = file.read(32)
    name = next((name for magic, name in _STARTS.items() if start.startswith(magic)), None)
    if start[4:8] == b"ftyp":
        name = "AVIF" if start[8:12] in (b"avif", b"avis") else "HEIC"
    return f"it is {name}; replace it by a PNG or JPEG, or remove it" if name else "replace or remove it"


def read_header(path: str | os.PathLike) -> Header | None:
    """Reads the header of a PNG or TIFF file; None if it is another format.

    Raises:
      FileError: the image is too large, or the file has several pictures.
    """
    with open(path, "rb") as file:
        start = file.read(32)
        if start.startswith(b"\x89PNG\r\n\x1a\n") and len(start) >= 26:
            width, height, bits, colour = struct.unpack(">IIBB", start[16:26])
            return Header(format="PNG", size=(height, width), bits=bits, bands={2: 3, 4: 2, 6: 4}.get(colour, 1))
        if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        pages = list(_directories(file, start[: 16 if b"+" in start[:4] else 8]))
    if not pages:
        raise ValueError("it has no directory")
    # Smaller copies and masks of the first page are no pictures of their own (TIFF 6.0, NewSubfileType; SubfileType).
    whole = [tags for tags in pages if not (tags.get(254, 0) & 5 or tags.get(255, 1) == 2)]
    if len(whole) > 1 or (whole and whole[0] is not pages[0]):
        raise _several(path, f"{len(pages)} pages" + ("" if len(whole) > 1 else ", the first of them a smaller copy"))
    tags = whole[0] if whole else pages[0]
    if not {256, 257} <= tags.keys():
        raise ValueError("its directory is cut off")
    bits = tags.get(258, (1,))
    return Header(
        format="TIFF",
        size=(tags[257], tags[256]),
        bits=max(bits) if isinstance(bits, tuple) else bits,
        bands=tags.get(277, 1),
        kind={2: "int", 3: "float"}.get(tags.get(339, (1,))[0], "uint"),
        tags=tags,
    )


def _directories(file: BinaryIO, start: bytes) -> Iterator[dict[int, object]]:
    """The tags of every page of a TIFF file, up to a thousand."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(start)
    seen: set[int] = set()
    while tags.next and tags.next not in seen and len(seen) < 1000:
        seen.add(tags.next)
        file.seek(tags.next)
        tags.load(file)
        yield {number: tags[number] for number in _TAGS if number in tags}


def read_orientation(path: str | os.PathLike) -> int:
    """Reads the EXIF orientation of an image file, 1 to 8 (EXIF 2.32, tag 0x0112); 1 is upright.

    Raises:
      InputError: the file is no readable image.
    """
    return _as_stored(path)[1]


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Reads the (height, width) of an image file as viewers show it, without decoding its pixels.

    Raises:
      InputError: the file is no readable image.
    """
    (height, width), orientation = _as_stored(path)
    return (width, height) if orientation > 4 else (height, width)


def _as_stored(path: str | os.PathLike) -> tuple[tuple[int, int], int]:
    """The (height, width) of an image file as it is stored, and its EXIF orientation."""
    with naming_faults(path):
        header = read_header(path)
        if header is not None and header.format == "TIFF":
            return header.size, int(header.tags.get(ExifTags.Base.Orientation, 1))
        with opened(path) as image:
            return (image.height, image.width), image.getexif().get(ExifTags.Base.Orientation, 1)


def checked_header(path: str | os.PathLike) -> Header | None:
    """Reads the header of a PNG or TIFF file (see `read_header`), and checks its size and bands."""
    header = read_header(path)
    if header is not None:
        _check_size(path, header.size)
        _check_bands(path, header)
    return header


def _check_bands(path: str | os.PathLike, header: Header) -> None:
    """Raises FileError if a TIFF has bands of which it does not say that they are grey, colours or transparency."""
    photometric, bands = header.tags.get(262, 1), header.bands
    extra = header.tags.get(338, ())
    grey = header.format == "TIFF" and photometric in (0, 1)
    if grey and bands > 1 and not (bands == 2 and extra and extra[0] in (1, 2)):
        raise FileError(
            "unfit-file",
            path,
            f"{bands} bands, of which the file does not say which are red, green and blue",
            "one band (grey), or three that are marked as RGB",
            "write the three bands to use as an 8-bit RGB file: gdal_translate -b R -b G -b B -ot Byte -scale LOW HIGH "
            "FILE FILE.png",
        )


def check_lossless(image: Image.Image, path: str | os.PathLike) -> None:
    """Raises FileError if the compression of an opened mask file may have changed its ids."""
    form = image.format
    if form == "TIFF" and image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
        form = f"TIFF ({image.info['compression']})"
    elif form not in ("JPEG", "MPO") and not (form == "WEBP" and b"VP8 " in _chunks(path)):
        return
    found, expected = f"the mask is a {form} file, whose compression changes ids", "class ids in a PNG"
    advice = "export it again as PNG from where it was drawn; only where it has two levels, a threshold restores it"
    raise FileError("lossy-mask", path, found, expected, advice)


def _chunks(path: str | os.PathLike) -> set[bytes]:
    """The kinds of the chunks of a WebP file: "VP8 " holds lossy pixels, "VP8L" lossless ones (RFC 9649)."""
    data, place, kinds = pathlib.Path(path).read_bytes(), 12, set()
    while place + 8 <= len(data):
        kinds.add(data[place : place + 4])
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return kinds
