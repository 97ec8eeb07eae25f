"""Names of files: which tool writes such names, and which of one folder are an image and its mask."""

from __future__ import annotations

import collections
import pathlib
import re
from collections.abc import Iterable, Sequence

from scarce_jax.data.builders.formats.pairing import constant_endings, cores
from scarce_jax.errors import plural

IMPORT = "`scarce-jax prepare folder/NAME --source DIR` reads exports as the tool wrote them"
TOOLS = (
    (r"task-\d+-annotation-\d+-by-\d+-", f"these are brush masks of Label Studio, one a region: {IMPORT}"),
    (r"\.rf\.[0-9A-Za-z]+_mask$", f"these are masks of Roboflow: {IMPORT}"),
    (
        r"_gt(Fine|Coarse)_\w+$",
        "these are masks of Cityscapes, which `scarce-jax prepare cityscapes` reads",
    ),
    (r"masks_(machine|human)/.*\.(jpe?g|png|bmp|tiff?)$", f"these are masks of Supervisely: {IMPORT}"),
)
"""A pattern of names of mask files, and which tool writes them."""
MASK_WORD = re.compile(r"mask|label|(?<![a-z])(gt|seg)", re.IGNORECASE)


def annotations_in(folder: pathlib.Path) -> str:
    """A sentence about the JSON files of a folder, with a semicolon before it; empty if there is none."""
    count = sum(1 for _ in folder.rglob("*.json"))
    return f"; {plural(count, '.json file')} in it may be annotations: {IMPORT}" if count else ""


def written_by(folder: pathlib.Path, names: Sequence[str]) -> str:
    """The sentence of `TOOLS` about the tool whose pattern most names have; empty if there is none."""
    for pattern, sentence in TOOLS:
        if 2 * sum(bool(re.search(pattern, f"{folder.name}/{name}")) for name in names) > len(names):
            return sentence
    return ""


def pairs_in(names: Iterable[str]) -> dict[str, str]:
    """Finds the pairs in the names of one folder of images and masks.

    Masks have the name of an image with a constant beginning or end added, such as "a_mask", or a word for masks in
    its place, such as "mask_1" beside "img_1".

    Returns:
      Name of an image -> name of its mask; {} if fewer than a third of the names are such masks.
    """
    names = list(names)
    known = set(names)
    pairs: dict[tuple[str, str], dict[str, str]] = collections.defaultdict(dict)
    for name in names:
        folder, slash, last = name.rpartition("/")
        for k in range(1, len(last)):
            for image, added in ((last[:k], ("", last[k:])), (last[k:], (last[:k], ""))):
                if f"{folder}{slash}{image}" in known:
                    pairs[added][f"{folder}{slash}{image}"] = name
    found = max(pairs.values(), key=len, default={})
    masks = [name for name in names if MASK_WORD.search(name)]
    images = [name for name in names if not MASK_WORD.search(name)]
    if not found and masks and images:
        for before, after in constant_endings(images, masks)[:1]:
            made = {name: f"{before}{core}{after}" for name, core in cores(images).items()}
            found = {image: mask for image, mask in made.items() if mask in known}
    return found if 3 * len(found) >= len(names) else {}
