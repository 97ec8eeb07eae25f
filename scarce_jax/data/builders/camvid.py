"""CamVid, 11 classes at 480x360, in the layout of the SegNet tutorial."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.files import Example, read_files
from scarce_jax.data.datasets import CAMVID
from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.errors import InputError

VOID = 11
"""Id of unlabelled pixels in the mask files."""

INDICES = {**{k: k for k in range(len(CAMVID.classes))}, VOID: IGNORE}


class Camvid(SegmentationBuilder):
    """Reads train.txt, val.txt and test.txt, each line an image and its mask; the splits that are there.

    Paths are taken relative to the source folder. Absolute ones (the tutorial's lists have those of their authors'
    machine) are found by their last two parts, `train/x.png`.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOLDS = "CamVid as in the SegNet tutorial: train.txt, val.txt or test.txt, and the images and masks they list"

    def describe(self) -> DatasetInfo:
        return CAMVID

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        lists = {split: self.source / f"{split}.txt" for split in CAMVID.splits}
        lists = {split: path for split, path in lists.items() if path.is_file()}
        if not lists:
            raise InputError(f"{self.source}: has no train.txt, val.txt or test.txt; expected {self.HOLDS}")
        pairs = {split: self._pairs(path) for split, path in lists.items()}
        return {split: _examples(files) for split, files in pairs.items()}

    def _pairs(self, listing: pathlib.Path) -> list[tuple[pathlib.Path, pathlib.Path]]:
        try:
            lines = listing.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{listing}: not a readable text file ({error}); expected {self.HOLDS}") from error
        pairs = []
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2:
                raise InputError(f"{listing}, line {number}: {line.strip()!r}, expected an image path and a mask path")
            image, mask = (self._locate(word) for word in words)
            for path, what in ((image, "image"), (mask, "mask")):
                if not path.is_file():
                    raise InputError(
                        f"{path}: the {what} of example {image.stem} is missing ({listing}, line {number}); "
                        "restore it or take the line off the list"
                    )
            pairs.append((image, mask))
        return pairs

    def _locate(self, word: str) -> pathlib.Path:
        path = pathlib.PurePosixPath(word)
        return self.source.joinpath(*(path.parts[-2:] if path.is_absolute() else path.parts))


def _examples(files: list[tuple[pathlib.Path, pathlib.Path]]) -> Iterator[Example]:
    for image, mask in files:
        yield Example(id=image.stem, **read_files(image, {"fine": mask}, image.stem, INDICES))
