"""Reads the files of one example, finds the faults of single files, and measures what the rules need."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from scarce_jax.data.decoding import opened, read_orientation
from scarce_jax.data.image_files import FileError
from scarce_jax.data.images import read_ids, read_image, wxh
from scarce_jax.data.palettes import used_colours
from scarce_jax.doctor.facts import Example, Facts, MaskFacts
from scarce_jax.doctor.findings import Finding, fault, fault_of
from scarce_jax.doctor.pixels import black_and_white, digest, outline
from scarce_jax.errors import InputError

MAX_COLOURS = 256
ENDS = {b"\x89PNG": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}
"""First bytes of a file format -> its last bytes."""

# Advice for a mask of two values in a lossy file.
THRESHOLD = (
    "it is black and white, so a threshold brings the two classes back: "
    "Image.fromarray((np.asarray(Image.open(path).convert('L')) > 127).astype('uint8')), saved as PNG, is 1 where the "
    "mask is white; masks of more classes must be exported again"
)

# Advice for a mask that has another size than its image.
EXIF = "the mask was drawn without the EXIF rotation of the image: turn the mask too, or remove the image's tag"
SWAPPED = "width and height are swapped: look at both, then transpose or turn the mask"
SCALED = (
    "same shape at another scale: resize one of the two; the mask by nearest neighbour only "
    "(Image.resize(size, Image.NEAREST))"
)
CROPPED = "another crop, or the mask of another image: find the right file, or take both out"


def examine_files(example: Example, void: frozenset[int], deep: bool) -> Facts:
    """Reads the files of an example.

    Args:
      void: ids of void pixels, 255 among them.
      deep: whether to measure `MaskFacts.outlines`, which is slow.
    """
    facts = Facts(example=example)
    image = None
    try:
        image = read_image(example.image)
    except InputError as error:
        facts.faults.append(_unreadable(example.image, error))
    read = [None if path is None else _read_ids(path, facts) for path in (example.mask, example.coarse)]
    if image is not None:
        orientation = read_orientation(example.image)
        facts.faults += _hidden_pixels(example.image)
        for path, mask in zip((example.mask, example.coarse), read, strict=True):
            if mask is not None and mask.size is not None:
                facts.faults += _size_faults(path, mask.size, example.image, image.shape[:2], orientation)
    examine_arrays(facts, image, *(None if mask is None else mask.ids for mask in read), void, deep)
    for content, mask in zip((facts.fine, facts.coarse), read, strict=True):
        if content is not None:
            content.colours.update(used_colours(content.counts, mask.palette))
    return facts


def examine_arrays(
    facts: Facts,
    image: np.ndarray | None,
    fine: np.ndarray | None,
    coarse: np.ndarray | None,
    void: frozenset[int],
    deep: bool,
) -> Facts:
    """Adds the content of the decoded arrays to `facts`.

    Args:
      image: uint8 [H, W, 3].
      fine, coarse: integer ids [H, W], which may differ from the image in size.
      void, deep: as for `examine_files`.
    """
    example = facts.example
    if image is not None:
        facts.digest = digest(image)
        colour = image[0, 0]
        if (image == colour).all():
            facts.faults.append(fault("constant-image", example.image, f"every pixel is {tuple(colour.tolist())}"))
    if fine is not None:
        facts.fine = _mask_facts(example.mask, fine, void, deep)
        if facts.fine.counts.keys() <= void:
            facts.faults.append(fault("all-ignore", example.mask, "every pixel is void"))
    if coarse is not None:
        facts.coarse = _mask_facts(example.coarse, coarse, void, deep)
    if fine is not None and coarse is not None and fine.shape == coarse.shape:
        labelled = ~(np.isin(fine, list(void)) | np.isin(coarse, list(void)))
        facts.labelled = int(labelled.sum())
        facts.wrong = _counts(coarse[labelled & (fine != coarse)])
    return facts


def _hidden_pixels(path: pathlib.Path) -> Iterator[Finding]:
    """Transparent pixels of an image, which are read with their stored colours."""
    try:
        with opened(path) as image:
            alpha = np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
    except Exception:  # A TIFF that Pillow does not read.
        return
    if alpha is not None and not alpha.all():
        yield fault("transparent-image", path, f"{(alpha == 0).mean():.0%} of the pixels are transparent")


def _mask_facts(file: object, ids: np.ndarray, void: frozenset[int], deep: bool) -> MaskFacts:
    counts = _counts(ids)
    outlines = {}
    if deep and ids.dtype == np.uint8 and len(counts) > 2:
        highest = max((value for value in counts if value not in void), default=0)
        outlines = {value: outline(ids, value) for value in {0, highest} & counts.keys()}
    return MaskFacts(file, counts, outlines)


def _counts(ids: np.ndarray) -> dict[int, int]:
    """Id -> number of pixels."""
    if ids.dtype == np.uint8:  # many times faster than sorting
        pixels = np.bincount(ids.ravel())
        values = np.flatnonzero(pixels)
        return dict(zip(values.tolist(), pixels[values].tolist(), strict=True))
    values, pixels = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), pixels.tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class _Mask:
    """The ids [H, W] and the palette of a mask file, None without; and its (H, W), None if it is unreadable."""

    ids: np.ndarray | None = None
    palette: np.ndarray | None = None
    size: tuple[int, ...] | None = None


def _read_ids(path: pathlib.Path, facts: Facts) -> _Mask:
    """Reads a mask file; a fault or its colours are added to `facts` if it has no ids."""
    try:
        ids, palette = read_ids(path)
        return _Mask(ids, palette, ids.shape)
    except InputError as error:
        finding = _unreadable(path, error)
    if finding.kind not in ("colour-mask", "lossy-mask", "not-ids"):
        facts.faults.append(finding)
        return _Mask()
    grey = colours = size = None
    with contextlib.suppress(Exception), opened(path) as image:  # Pillow does not convert all deep pixels.
        upright = ImageOps.exif_transpose(image)
        size = (upright.height, upright.width)
        grey, colours = np.asarray(upright.convert("L")), upright.convert("RGB").getcolors(MAX_COLOURS)
    if finding.kind == "colour-mask":
        facts.colours[path] = colours
        return _Mask(size=size)
    if finding.kind == "lossy-mask" and grey is not None and black_and_white(grey):
        finding.advice = THRESHOLD
    facts.faults.append(finding)
    return _Mask(size=size)


def _unreadable(path: pathlib.Path, error: InputError) -> Finding:
    """Why a file cannot be decoded."""
    if isinstance(error, FileError):
        return fault_of(error)
    reason, _, advice = str(error).removeprefix(f"{path}: ").partition("; ")
    if not path.is_file() or not os.access(path, os.R_OK):
        return fault("unreadable-file", path, reason)
    data = path.read_bytes()
    if not data:
        return fault("empty-file", path, "0 bytes")
    end = next((end for start, end in ENDS.items() if data.startswith(start)), None)
    if end is not None and end not in data[-64:]:
        return fault(
            "truncated-file", path, f"cut off after {len(data):,} bytes: the end mark of its format is missing"
        )
    if end is None and isinstance(error.__cause__, Image.UnidentifiedImageError):
        changes = {"advice": advice} if advice.startswith("it is ") else {}
        return fault("not-an-image", path, f"no known image format (first bytes {data[:8]!r})", **changes)
    return fault("damaged-file", path, reason)


def _size_faults(
    mask: pathlib.Path, mask_size: tuple[int, ...], image: pathlib.Path, size: tuple[int, ...], orientation: int
) -> Iterator[Finding]:
    """A size that differs from the image's, or an EXIF rotation that equal sizes may hide."""
    if mask_size == size:
        if orientation in (2, 3, 4) or (orientation > 4 and size[0] == size[1]):
            observed = f"its image {image.name} has EXIF orientation {orientation}, which turns or mirrors it"
            yield fault("exif-rotation", mask, observed)
        return
    if mask_size == size[::-1]:
        advice = EXIF if orientation > 4 else SWAPPED
    else:
        scaled = abs(mask_size[0] * size[1] - mask_size[1] * size[0]) <= max(*mask_size, *size)
        advice = SCALED if scaled else CROPPED
    yield fault("size-mismatch", mask, f"{wxh(mask_size)}, its image {image.name} is {wxh(size)}", advice=advice)
