"""One example, looked at: what is wrong with its files, and the facts that the rules over all examples need."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from scarce_jax.data.images import read_image, read_mask, wxh
from scarce_jax.doctor.pixels import digest, outline
from scarce_jax.errors import InputError

ID_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
LOSSY = ("JPEG", "MPO", "WEBP")
MAX_COLOURS = 256
Colours = dict[tuple[int, int, int], int]
ENDS = {b"\x89PNG": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}
"""First bytes of a file of a format -> its last bytes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One example: which files it has. `tags` are class indices, None where nothing is said."""

    split: str
    name: str
    image: pathlib.Path | None = None
    mask: pathlib.Path | None = None
    coarse: pathlib.Path | None = None
    tags: frozenset[int] | None = None

    @property
    def where(self) -> str:
        """ "SPLIT/NAME", also where the name has the split in it."""
        return self.name if self.name.startswith(f"{self.split}/") else f"{self.split}/{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One finding of one file, as `Findings.add` takes it."""

    kind: str
    file: object
    found: str
    expected: str
    advice: str
    certain: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """What the rules need of a mask.

    Attributes:
      file: its name in messages.
      counts: id -> pixels.
      outlines: for 0 and the highest id, whether it runs along the borders of the others (see `outline`).
      bits: 16 or 32 where the file has more than 8.
    """

    file: object
    counts: dict[int, int]
    outlines: dict[int, bool]
    bits: int = 8


@dataclasses.dataclass(kw_only=True)
class Facts:
    """What is known of one example.

    Attributes:
      faults: of its files.
      colours: mask file -> its colours and their pixels, where it is a colour image.
      agreement: pixels with both a coarse and a fine label, those that differ, and the latter by coarse id.
    """

    example: Example
    faults: list[Fault]
    digest: bytes | None = None
    fine: MaskFacts | None = None
    coarse: MaskFacts | None = None
    colours: dict[pathlib.Path, Colours] = dataclasses.field(default_factory=dict)
    agreement: tuple[int, int, dict[int, int]] | None = None


def examine(example: Example, void: frozenset[int], deep: bool) -> Facts:
    """Reads an example's files.

    Args:
      void: ids of void pixels, 255 among them.
      deep: also measure `MaskFacts.outlines`, which takes longer.
    """
    facts = Facts(example=example, faults=[])
    image = None
    if example.image is not None:
        try:
            image = read_image(example.image)
        except (InputError, OSError) as error:
            facts.faults.append(unreadable(example.image, "image", error))
    fine = _read_ids(example.mask, facts) if example.mask is not None else None
    coarse = _read_ids(example.coarse, facts) if example.coarse is not None else None
    examine_arrays(facts, image, fine, coarse, void, deep, files={"fine": example.mask, "coarse": example.coarse})
    if image is not None:
        turned = _orientation(example.image)
        for path, ids in ((example.mask, fine), (example.coarse, coarse)):
            if ids is not None:
                facts.faults += _size_fault(path, ids.shape, example.image, image.shape[:2], turned)
    return facts


def examine_arrays(
    facts: Facts,
    image: np.ndarray | None,
    fine: np.ndarray | None,
    coarse: np.ndarray | None,
    void: frozenset[int],
    deep: bool,
    files: dict[str, object],
) -> None:
    """Fills in the facts of decoded arrays.

    Args:
      image: uint8 [H, W, 3].
      fine, coarse: integer ids [H, W] of any size.
      files: what "fine" and "coarse" are called in messages.
    """
    if image is not None:
        facts.digest = digest(image)
        first = image[0, 0]
        # A few pixels tell it for nearly all images, at once.
        if (image[::16, ::16] == first).all() and (image == first).all():
            facts.faults.append(
                Fault(
                    kind="constant-image",
                    file=facts.example.image or facts.example.name,
                    found=f"every pixel is {tuple(first.tolist())}",
                    expected="a picture",
                    advice="look at the file; a failed export or a placeholder belongs out of the data",
                    certain=False,
                )
            )
    for key, ids in (("fine", fine), ("coarse", coarse)):
        if ids is not None:
            setattr(facts, key, mask_facts(files[key], ids, void, deep))
    if fine is not None and np.isin(fine, list(void)).all():
        facts.faults.append(
            Fault(
                kind="all-ignore",
                file=files["fine"],
                found="every pixel is void",
                expected="at least one labelled pixel",
                advice="label it, or remove the mask so that the image counts as unlabelled",
            )
        )
    if fine is not None and coarse is not None and fine.shape == coarse.shape:
        both = ~np.isin(fine, list(void)) & ~np.isin(coarse, list(void))
        wrong = both & (fine != coarse)
        ids, counts = np.unique(coarse[wrong], return_counts=True)
        by_id = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        facts.agreement = int(both.sum()), int(wrong.sum()), by_id


def mask_facts(file: object, ids: np.ndarray, void: frozenset[int], deep: bool) -> MaskFacts:
    """The facts of integer ids [H, W]."""
    bits = 8
    if ids.min() >= 0 and ids.max() <= 255:
        small = ids.astype(np.uint8)
        pixels = np.bincount(small.ravel())
        counts = {int(v): int(pixels[v]) for v in np.flatnonzero(pixels)}
    else:
        values, codes, pixels = np.unique(ids, return_inverse=True, return_counts=True)
        counts = {int(v): int(n) for v, n in zip(values, pixels, strict=True)}
        # Ids as positions in their order: few enough for a byte in all but hopeless masks.
        small = np.minimum(codes.reshape(ids.shape), 255).astype(np.uint8)
        bits = 16 if values[-1] < 2**16 and values[0] >= 0 else 32
    classes = [v for v in counts if v not in void]
    outlines = {}
    if deep and bits == 8 and len(counts) > 2:
        outlines = {v: outline(small, v) for v in {0, max(classes, default=0)} & set(counts)}
    return MaskFacts(file=file, counts=counts, outlines=outlines, bits=bits)


def unreadable(path: pathlib.Path, what: str, error: Exception) -> Fault:
    """Why a file gave no picture."""
    expected, reason = f"a readable {what}", str(error).removeprefix(f"{path}: ").partition(";")[0]
    if isinstance(error, OSError) or not path.is_file():
        return Fault(
            kind="unreadable-file", file=path, found=reason, expected=expected, advice="check its permissions and disk"
        )
    if not path.stat().st_size:
        advice = "fetch or export it again; a full disk or a broken copy leaves such files"
        return Fault(kind="empty-file", file=path, found="0 bytes", expected=expected, advice=advice)
    data = path.read_bytes()
    ends = [end for start, end in ENDS.items() if data.startswith(start)]
    if ends and ends[0] not in data[-64:]:
        advice = "fetch or export it again; a download or copy broke off"
        fault = f"cut off after {len(data):,} bytes: the end mark of its format is missing"
        return Fault(kind="truncated-file", file=path, found=fault, expected=expected, advice=advice)
    if not ends and isinstance(error.__cause__, Image.UnidentifiedImageError):
        fault = f"no known image format (first bytes {data[:8]!r})"
        advice = "replace it, or take it out of the folder"
        return Fault(kind="not-an-image", file=path, found=fault, expected=expected, advice=advice)
    return Fault(kind="damaged-file", file=path, found=reason, expected=expected, advice="fetch or export it again")


def _read_ids(path: pathlib.Path, facts: Facts) -> np.ndarray | None:
    """The ids [H, W] of a mask file; None where it has none, which is then in the faults."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as header:
                form, mode = header.format, header.mode
                if form not in LOSSY and mode not in ID_MODES and mode != "F":
                    header.load()
                    facts.colours[path] = _colours(np.asarray(header.convert("RGB")))
        if form in LOSSY:
            facts.faults.append(
                Fault(
                    kind="lossy-mask",
                    file=path,
                    found=f"a {form} file",
                    expected="class ids in an 8-bit grey or palette PNG",
                    advice="export the masks again as PNG from where they were drawn; lossy compression changes ids "
                    "along every border, and only a WebP saved without loss can be converted",
                )
            )
            return None
        if mode not in ID_MODES:
            facts.faults += [] if path in facts.colours else [_not_ids(path, mode)]
            return None
        ids = read_mask(path).astype(np.int64)
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged files
        wrapped = InputError(f"{type(error).__name__}: {error}")
        wrapped.__cause__ = error if not isinstance(error, InputError) else error.__cause__
        facts.faults.append(unreadable(path, "mask", wrapped))
        return None
    if mode.startswith("I"):
        facts.faults.append(
            Fault(
                kind="deep-mask",
                file=path,
                found=f"{16 if ';16' in mode else 32} bits a pixel, ids up to {int(ids.max())}",
                expected="8 bits a pixel, with 255 for void",
                advice="save the masks as 8-bit grey PNG: Image.fromarray(mask.astype('uint8')).save(path), with void "
                "set to 255 before and ids above 255 recoded",
            )
        )
    return ids


def _not_ids(path: pathlib.Path, mode: str) -> Fault:
    return Fault(
        kind="not-ids",
        file=path,
        found=f"pixels of kind {mode}",
        expected="one class id a pixel, 8-bit grey or palette PNG",
        advice="save class ids, rounded and as 8-bit grey PNG",
    )


def _colours(rgb: np.ndarray) -> Colours:
    """Colour -> pixels, the commonest MAX_COLOURS + 1."""
    wide = rgb.astype(np.uint32)
    values, counts = np.unique((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2], return_counts=True)
    order = np.argsort(-counts, kind="stable")[: MAX_COLOURS + 1]
    return {(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255): int(counts[i]) for i in order for v in [values[i]]}


def _orientation(path: pathlib.Path) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as header:
            return header.getexif().get(ExifTags.Base.Orientation, 1)


def _size_fault(
    mask: pathlib.Path, mask_size: tuple[int, ...], image: pathlib.Path, size: tuple[int, ...], orientation: int
) -> Iterator[Fault]:
    """Why a mask has not the size of its image, or may be turned against it."""
    if mask_size == size:
        if orientation in (2, 3, 4) or (orientation > 4 and size[0] == size[1]):
            yield Fault(
                kind="exif-rotation",
                file=mask,
                found=f"its image {image.name} has EXIF orientation {orientation}, which turns or mirrors it",
                expected="a mask of the image as viewers show it",
                advice="look at image and mask together; if the mask was drawn without the EXIF rotation, turn it too, "
                "or save the image without the tag",
                certain=False,
            )
        return
    if mask_size == size[::-1] and orientation > 4:
        advice = (
            "the image carries an EXIF rotation that the mask was drawn without: turn the mask as the tag says, or "
            "remove the tag from the image"
        )
    elif mask_size == size[::-1]:
        advice = "width and height are swapped: transpose or turn the mask, after looking at which of the two it is"
    elif abs(mask_size[0] * size[1] - mask_size[1] * size[0]) <= max(*mask_size, *size):
        advice = (
            "same shape at another scale: resize one of the two; the mask by nearest neighbour only "
            "(Image.resize(size, Image.NEAREST))"
        )
    else:
        advice = "another crop, or the mask of another image: find the right file, or take both out"
    yield Fault(
        kind="size-mismatch",
        file=mask,
        found=f"{wxh(mask_size)}, its image {os.fspath(image.name)} is {wxh(size)}",
        expected="a mask as large as its image",
        advice=advice,
    )
