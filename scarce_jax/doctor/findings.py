"""The kinds of faults that the label doctor finds, their texts, and findings: faults with equal texts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from scarce_jax.data.image_files import FileError
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
    "mask-without-image": Kind("an image of that name"),
    "names-differ": Kind("a mask has the name of its image, up to the suffix"),
    "folder-not-read": Kind("masks in a folder `masks`, coarse masks in a folder `coarse`"),
    "one-folder": Kind("images and masks in folders of their own"),
    "no-labels": Kind("masks, coarse masks or tags to learn from"),
    "no-fine-masks": Kind("fine masks, which predictions are measured by", certain=False),
    "tags-file": Kind(
        "lines id,class;class",
        "correct it, and check again: the lines after it were not read, and no tag was compared with a mask",
    ),
    # Images.
    "constant-image": Kind("a picture", "look at the file; remove it if it is a placeholder or a failed export", False),
    "transparent-image": Kind(
        "opaque images, because transparency is left out",
        "if hidden pixels should have another colour, give it to all images: magick mogrify -background white "
        "-alpha remove -alpha off FILE",
        False,
    ),
    "duplicate-image": Kind("each image once in a split", "remove one, unless it is meant to count twice", False),
    "image-in-two-splits": Kind(
        "each image in one split", "remove it from one of the two; a measurement on a trained image is too high"
    ),
    # Mask files.
    "lossy-mask": Kind(ID_FILE),
    "deep-mask": Kind(
        "ids of at most 255 classes",
        "class * 1000 + number is an instance id, and a value that changes from pixel to pixel is a depth or a "
        "height: export the masks of class ids",
    ),
    "unusable-mask": Kind(
        "ids, colours or shapes of the listed classes", "correct the list of classes, or export the mask again"
    ),
    "blended-mask": Kind(
        "a few ids, each with an area of its own",
        "resizing with blending, antialiasing and JPEG leave ids in between at borders: export the masks again "
        "without, and resize by nearest neighbour only",
        False,
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
    "id-numbering": Kind("class ids from 0, in the order of the names"),
    "void-code": Kind("void is 255"),
    "void-class": Kind(
        "only classes to predict; void is 255", "take it off the list of classes, and save void as 255", False
    ),
    "one-class": Kind("at least two classes besides void, 255"),
    "empty-class": Kind("pixels of every class", certain=False),
    # Masks and tags that contradict each other.
    "coarse-contradicts-fine": Kind("at most 25%"),
    "coarse-never-void": Kind("255 where a coarse mask has no label", certain=False),
    "tags-contradict-mask": Kind("a tag for every class in the mask"),
}


READING = re.compile(r" (?=\(\d\) )")
"""Where a numbered reading begins in an advice."""
SHOWN = 5
"""Files that a finding names; the others are counted."""


@dataclasses.dataclass(kw_only=True)
class Finding:
    """All faults of one kind with equal texts.

    Attributes:
      kind: a key of `KINDS`.
      expected, advice, certain: see `Kind`.
      examples: (file, what was observed) of the first `SHOWN` faults.
      count: number of files or pairs of images with this fault.
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
        level = "PROBLEM" if self.certain else "WARNING"
        file, observed = self.examples[0]
        alike = all(text == observed for _, text in self.examples)
        where = file if len(self.examples) == 1 else f"{self.count:,} files"
        if len(self.examples) == 1 and self.count > 1:
            where += f", {self.count:,} files"
        head = f"{level} {self.kind} in {where}{f': {observed}' if alike else ''}; expected {self.expected}"
        # Several readings of what was seen have a line each.
        advice = f"  To do: {READING.sub(chr(10) + '    ', self.advice)}."
        if len(self.examples) == 1:
            return f"{head}.\n{advice}"
        files = [f"  {file}" if alike else f"  {file}: {text}" for file, text in self.examples]
        more = self.count - len(files)
        return "\n".join([f"{head}:", *files, *([f"  and {more:,} more"] if more else []), advice])


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
