"""The kinds of faults that the label doctor finds, their texts, and findings: faults with equal texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from scarce_jax.data.files import FileError
from scarce_jax.errors import printable

READABLE = "a readable image file"
ID_FILE = "one class id per pixel, in an 8-bit grey or palette PNG"


@dataclasses.dataclass(frozen=True)
class Kind:
    """The texts that all faults of one kind share.

    Attributes:
      expected: what should be there.
      advice: what to do; empty where it depends on the fault.
      certain: False for a warning, which may be right and does not fail the check.
    """

    expected: str
    advice: str = ""
    certain: bool = True


KINDS = {
    # Files and folders.
    "unreadable-file": Kind(READABLE, "check its permissions and the disk"),
    "empty-file": Kind(READABLE, "fetch or export it again; a full disk or a broken copy leaves such files"),
    "truncated-file": Kind(READABLE, "fetch or export it again; a download or copy broke off"),
    "not-an-image": Kind(READABLE, "replace it, or take it out of the folder"),
    "damaged-file": Kind(READABLE, "fetch or export it again"),
    "unfit-file": Kind("an image of a kind that is read"),
    "unreadable-name": Kind("a name of printable text"),
    "duplicate-stem": Kind("one file per example"),
    "mask-without-image": Kind("an image of that name", "restore the image, correct the name, or remove the mask"),
    "names-differ": Kind("a mask has the name of its image, up to the suffix"),
    "folder-not-read": Kind("masks in a folder `masks`, coarse masks in a folder `coarse`"),
    "tags-file": Kind(
        "lines id,class;class",
        "correct it, and check again: the lines after it were not read, and no tag was compared with a mask",
    ),
    # Images.
    "constant-image": Kind("a picture", "look at the file; remove it if it is a placeholder or a failed export", False),
    "transparent-image": Kind(
        "opaque images, because transparency is left out",
        "if hidden pixels should have another colour, give it to all images: magick FILE -background white -flatten "
        "FILE.png",
        False,
    ),
    "duplicate-image": Kind("each image once in a split", "remove one, unless it is meant to count twice", False),
    "image-in-two-splits": Kind(
        "each image in one split", "remove it from one of the two; a measurement on a trained image is too high"
    ),
    # Mask files.
    "lossy-mask": Kind(ID_FILE),
    "deep-mask": Kind(
        ID_FILE, "recode void to 255 and other ids to 0..254, then Image.fromarray(mask.astype('uint8')).save(path)"
    ),
    "not-ids": Kind(ID_FILE),
    "colour-mask": Kind(ID_FILE),
    "palettes-differ": Kind("one palette for all masks"),
    "size-mismatch": Kind("a mask as large as its image"),
    "exif-rotation": Kind(
        "a mask of the image as viewers show it",
        "look at both; if the mask was drawn without the EXIF rotation, turn it, or save the image without the tag",
        False,
    ),
    "all-ignore": Kind("at least one labelled pixel", "label it, or remove the mask: the image is then unlabelled"),
    # Ids.
    "id-out-of-range": Kind("class ids"),
    "void-code": Kind("void is 255"),
    "void-class": Kind(
        "only classes to predict; void is 255", "take it off the list of classes, and save void as 255", False
    ),
    "one-class": Kind("at least two classes besides void, 255", "if 255 is the object in these masks, write 1 for it"),
    "empty-class": Kind("pixels of every class"),
    # Masks and tags that contradict each other.
    "coarse-contradicts-fine": Kind("at most 25%"),
    "tags-contradict-mask": Kind("a tag for every class in the mask"),
}


SHOWN = 3
"""Files that a finding names; the others are counted."""


@dataclasses.dataclass(kw_only=True)
class Finding:
    """All faults of one kind with equal texts.

    Attributes:
      kind: a key of `KINDS`.
      expected, advice, certain: see `Kind`.
      examples: (file, what was observed) of the first `SHOWN` faults.
      count: number of files, classes or pairs of images with this fault.
    """

    kind: str
    expected: str
    advice: str
    certain: bool
    examples: list[tuple[str, str]]
    count: int = 1

    def to_json(self) -> dict[str, Any]:
        file, observed = self.examples[0]
        texts = {"kind": self.kind, "file": file, "found": observed, "expected": self.expected, "advice": self.advice}
        return {**texts, "count": self.count, "files": [file for file, _ in self.examples]}

    def __str__(self) -> str:
        file, observed = self.examples[0]
        where = f"in {file}" if self.count == 1 else f"in {self.count:,} places, first {file}"
        level = "PROBLEM" if self.certain else "WARNING"
        return f"{level} {self.kind} {where}: {observed}; expected {self.expected}. To do: {self.advice}."


def fault(kind: str, file: object, observed: str, **changes: Any) -> Finding:
    """A fault of one file: what was observed, and the texts of its kind, some of them replaced by `changes`."""
    example = (printable(file), printable(observed))
    return Finding(**{**vars(KINDS[kind]), "kind": kind, "examples": [example], **changes})


def fault_of(error: FileError) -> Finding:
    """The fault that an error of listing or reading a file tells."""
    return fault(error.kind, error.path, error.found, expected=error.expected, advice=error.advice)


def group(faults: Iterable[Finding]) -> tuple[Finding, ...]:
    """Joins faults with equal texts, in the order of the first of each."""
    findings: dict[tuple, Finding] = {}
    for one in faults:
        key = (one.kind, one.expected, one.advice, one.certain)
        if key not in findings:
            findings[key] = one
            continue
        findings[key].count += one.count
        findings[key].examples = [*findings[key].examples, *one.examples][:SHOWN]
    return tuple(findings.values())
