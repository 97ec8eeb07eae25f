"""Image files of more than 8 bits a sample: their values, and how they become bytes.

Pillow drops the lower half of 16-bit colours, and does not know floats of 64 bits or in colour. OpenCV decodes them,
but mixes up what lies in separate planes or in two bands, so that the header is checked first.
"""

from __future__ import annotations

import os
import pathlib

import cv2
import numpy as np

from scarce_jax.data.decoding import Header, read_orientation
from scarce_jax.data.image_files import FileError


def deep_values(path: str | os.PathLike, header: Header) -> np.ndarray:
    """Decodes a file of more than 8 bits a sample, upright: values [H, W], or [H, W, 3] RGB, of the file's own dtype.

    Transparency is left out.

    Raises:
      FileError: its layout is not read.
    """
    photometric, planes = header.tags.get(262, 1), header.tags.get(284, 1)
    separate = planes == 2 and header.bands > 1
    # OpenCV knows no half floats and no complex numbers, and scales integers of 10, 12 and 14 bits.
    sizes = (32, 64) if header.kind == "float" else (8, 16, 32, 64)
    numbers = header.bits in sizes and header.tags.get(339, (1,))[0] in (1, 2, 3)
    if header.format == "TIFF" and (separate or photometric not in (1, 2) or header.bands == 2 or not numbers):
        raise FileError(
            "unfit-file",
            path,
            f"a TIFF of {header.bits}-bit {header.kind} samples in a layout that is not read (photometric "
            f"{photometric}, {header.bands} bands, {'separate planes' if separate else 'joined'})",
            "grey or RGB, with the colours of a pixel side by side",
            "write it as 8-bit PNG",
        )
    if header.bands > 4:
        raise FileError("unfit-file", path, f"{header.bands} bands", "1, 3 or 4 bands", "write the three bands to use")
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("its pixels cannot be read")
    if header.bands > 2:
        values = values[..., 2::-1]
    elif values.ndim > 2:
        values = values[..., 0]
    # OpenCV turns TIFF by itself, and PNG not.
    return turned(values, 1 if header.format == "TIFF" else read_orientation(path))


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels [H, W, ...] upright."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def to_bytes(values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Scales deep values to uint8: 0..65535 keep their upper 8 bits, floats of 0..1 are multiplied by 255.

    The scale is one for all files, so that no file is brightened against another. Files that would come out nearly
    black, because their values need another scale (12 bits of a camera, 8 bits in a 16-bit file), are refused.

    Args:
      values: integers or floats of any shape.
      path: for messages.

    Raises:
      FileError: a value is outside the range or not finite, or the largest one is under a quarter of it (and not 0).
    """
    floats = values.dtype.kind == "f"
    finite = bool(np.isfinite(values).all())
    low, high = (values.min(), values.max()) if finite else (np.nan, np.nan)
    limit = 1 if floats else 65535
    if low == high == 0 or (low >= 0 and limit / 4 <= high <= limit):
        return np.rint(values * 255).astype(np.uint8) if floats else (values >> 8).astype(np.uint8)
    kind = f"{8 * values.dtype.itemsize}-bit {'float ' if floats else ''}pixels"
    raise FileError(
        "unfit-file",
        path,
        f"{kind} of {low + 0:.10g} to {high + 0:.10g}" if finite else f"{kind} with values that are not finite",
        f"values of 0 to {limit}, {limit / 4:.5g} or more somewhere, because others come out nearly black",
        _rescale(path, float(low), float(high)),
    )


def _rescale(path: str | os.PathLike, low: float, high: float) -> str:
    """The command that converts a folder of deep files by one scale."""
    suffix = pathlib.Path(path).suffix
    if low >= 0 and 1 < high <= 65535:
        white = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits)
        scaled, where = f"cv2.imread(p, -1) * (255 / {white})", f"if {white} is the highest value that any can have"
    else:
        scaled = "(cv2.imread(p, -1) * 1.0 - LOW) * (255 / (HIGH - LOW))"
        where = "with LOW and HIGH the values that are to be black and white in all of them"
    command = (
        f"import cv2, glob; [cv2.imwrite(p[:-{len(suffix)}] + '.png', ({scaled}).clip(0, 255).astype('uint8')) "
        f"for p in glob.glob('*{suffix}')]"
    )
    kept = "" if suffix.lower() == ".png" else ", and move the old files away"
    return (
        f"convert all files of the data set to 8 bits by one scale{kept}; {where}, run in their folder: "
        f'python -c "{command}"'
    )
