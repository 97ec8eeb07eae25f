"""CamVid, 11 classes at 480x360, in the layout of the SegNet tutorial."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.files import Example, Files, read_examples
from scarce_jax.data.datasets import CAMVID
from scarce_jax.data.files import read_lines
from scarce_jax.errors import InputError


class Camvid(SegmentationBuilder):
    """Reads train.txt, val.txt and test.txt, if they exist. Each line has the paths of an image and its mask.

    Paths are relative to the source folder. Of absolute ones (the tutorial's lists have those of their authors'
    machine) the last two parts are used, `train/x.png`.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOLDS = "CamVid as in the SegNet tutorial: train.txt, val.txt or test.txt, and the images and masks they list"
    FACTS = CAMVID

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        lists = {split: self.source / f"{split}.txt" for split in CAMVID.splits}
        files = {split: self._files(path) for split, path in lists.items() if path.is_file()}
        if not files:
            raise InputError(f"{self.source}: has no train.txt, val.txt or test.txt; expected {self.HOLDS}")
        return {split: read_examples(listed, CAMVID.indices) for split, listed in files.items()}

    def _files(self, listing: pathlib.Path) -> list[Files]:
        files = []
        for number, line in enumerate(read_lines(listing, self.HOLDS), 1):
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
                        "restore it, or remove the line from the list"
                    )
            files.append(Files(id=image.stem, image=image, masks={"fine": mask}))
        return files

    def _locate(self, word: str) -> pathlib.Path:
        path = pathlib.PurePosixPath(word)
        return self.source.joinpath(*(path.parts[-2:] if path.is_absolute() else path.parts))
