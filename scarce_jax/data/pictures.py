"""Colours for people: masks in the colours of their classes, over the image, with a legend."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scarce_jax.data.schema import IGNORE
from scarce_jax.errors import InputError, printable

VOID_COLOUR = (224, 224, 192)
"""Of void pixels in mask files; that of PASCAL VOC."""

BAND = 256
"""Rows of an image that are blended at a time, since blending takes 12 bytes a pixel and more."""

HEAT = np.stack([np.full(256, 255), np.arange(256), np.zeros(256, int)], -1).astype(np.uint8)
"""Colours of the values of a map, 0..255, from red to yellow."""

MOST_ENTRIES, LONGEST_NAME = 40, 40
"""Largest number of classes in a legend, and of characters in a name."""


def file_palette(palette: Sequence[Sequence[int]] | np.ndarray, ids: Sequence[int] | None = None) -> np.ndarray:
    """Makes the palette of a mask file: RGB by id, uint8 [256, 3]; void (255) has `VOID_COLOUR`, other ids are black.

    Args:
      palette: an RGB triple (0..255) per class.
      ids: id of each class in the file, 0..255; None if it is the class index.
    """
    table = np.zeros((256, 3), np.uint8)
    table[IGNORE] = VOID_COLOUR
    table[list(range(len(palette)) if ids is None else ids)] = palette
    return table


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
    unknown = set(counts(mask)) - {*range(len(palette)), IGNORE}
    if unknown:
        raise InputError(f"a mask has the ids {sorted(unknown)[:10]}, expected 0..{len(palette) - 1} or {IGNORE}")
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
    shown, borders = np.empty_like(image), _borders(mask)
    for top in range(0, len(image), BAND):
        band = np.s_[top : top + BAND]
        colours = colourise(mask[band], palette)
        blended = image[band] + alpha * (colours.astype(np.float32) - image[band])
        tinted = np.where(borders[band, :, None], colours, np.rint(blended).astype(np.uint8))
        plain = (mask[band] == IGNORE) | ~colours.any(-1)
        shown[band] = np.where(plain[:, :, None], image[band], tinted)
    return shown


def heat(image: np.ndarray, values: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """Lays a map over an image: uint8 [H, W, 3].

    Args:
      image: uint8 [H, W, 3].
      values: uint8 [H, W]; where it is 0, the image is seen as it is.
      alpha: opacity of the value 255, 0..1; that of others is in proportion.
    """
    shown = np.empty_like(image)
    for top in range(0, len(image), BAND):
        band = np.s_[top : top + BAND]
        opacity = values[band, :, None].astype(np.float32) * (alpha / 255)
        shown[band] = np.rint(image[band] + opacity * (HEAT[values[band]] - image[band].astype(np.float32)))
    return shown


def _borders(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels with a 4-neighbour of another id."""
    neighbours = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return cv2.erode(mask, neighbours) != cv2.dilate(mask, neighbours)


def counts(mask: np.ndarray) -> dict[int, int]:
    """Id -> number of its pixels in a mask uint8 [H, W], only of ids that occur."""
    total = np.zeros(256, np.int64)
    # np.bincount would convert the whole mask to int64.
    for top in range(0, len(mask), BAND):
        total += np.bincount(mask[top : top + BAND].ravel(), minlength=256)
    return {int(k): int(total[k]) for k in np.flatnonzero(total)}


def add_legend(
    image: np.ndarray, mask: np.ndarray, classes: Sequence[str], palette: Sequence[Sequence[int]] | np.ndarray
) -> np.ndarray:
    """Puts a legend below an image, so that it hides nothing: uint8 [H + h, max(W, w), 3], the image at the top left.

    It has the classes of the mask, those with most pixels first, at most `MOST_ENTRIES`. The box of a class whose
    colour is black (a background, which `overlay` does not tint) is empty. A name that no font at hand can write is
    replaced by "class K" with the class's index.

    Args:
      image: uint8 [H, W, 3].
      mask: uint8 [H, W]; void (255) has no entry.
      classes: class names.
      palette: an RGB triple (0..255) per class.
    """
    found = counts(mask)
    found.pop(IGNORE, None)
    present = sorted(found, key=lambda k: (-found[k], k))
    size = max(12, round((image.shape[0] * image.shape[1]) ** 0.5 / 40))
    entries = [(*_written(classes[k], f"class {k}", size), tuple(palette[k])) for k in present[:MOST_ENTRIES]]
    if len(present) > MOST_ENTRIES:
        entries.append((*_written(f"and {len(present) - MOST_ENTRIES} more", "", size), None))
    if not entries:
        return image
    step = size * 3 // 2
    widths = [step + round(font.getlength(name)) + size for name, font, _ in entries]
    width = max(image.shape[1], max(widths) + size // 2)
    lines: list[list[int]] = [[]]
    for k, wide in enumerate(widths):
        if lines[-1] and size // 2 + sum(widths[i] for i in lines[-1]) + wide > width:
            lines.append([])
        lines[-1].append(k)
    strip = Image.new("RGB", (width, len(lines) * step + size // 2), "white")
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        left, top = size // 2, size // 2 + number * step
        for k in line:
            name, font, colour = entries[k]
            if colour is not None:
                box = (left, top, left + size, top + size)
                draw.rectangle(box, fill=colour if any(colour) else None, outline="dimgray", width=max(1, size // 16))
            draw.text((left + step, top + size / 2), name, fill="black", font=font, anchor="lm")
            left += widths[k]
    whole = np.full((image.shape[0] + strip.height, width, 3), 255, np.uint8)
    whole[: image.shape[0], : image.shape[1]] = image
    whole[image.shape[0] :] = strip
    return whole


def _written(name: str, other: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """A name as it is drawn, `other` if no font has all its characters; and its font, of a height in pixels."""
    name = printable(name)
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 1]}…"
    path = _font_for(name)
    if path is None:
        name, path = other, _own_font()
    return name, ImageFont.truetype(str(path), size)


@functools.cache
def _own_font() -> pathlib.Path:
    """The font that Matplotlib brings along; it has Latin, Greek, Cyrillic, Arabic and more."""
    import matplotlib

    return pathlib.Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@functools.cache
def _characters(font: pathlib.Path) -> Mapping[int, int]:
    """Code point -> glyph."""
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(font)).get_charmap()


@functools.cache
def _font_for(text: str) -> pathlib.Path | None:
    """A font with all characters of a text: Matplotlib's or one of the system's; None if there is none."""
    needed = {ord(character) for character in text}
    if needed <= _characters(_own_font()).keys():
        return _own_font()
    from matplotlib import font_manager

    for name in sorted(font_manager.findSystemFonts()):
        path = pathlib.Path(name)
        try:
            if needed <= _characters(path).keys():
                ImageFont.truetype(name, 12)
                return path
        # A damaged font, or one of pictures in fixed sizes.
        except (OSError, RuntimeError):
            continue
    return None
