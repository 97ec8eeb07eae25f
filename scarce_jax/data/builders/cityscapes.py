"""Cityscapes, 19 classes at 2048x1024, in the layout of its published archives."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SIMULATED, SegmentationBuilder
from scarce_jax.data.builders.files import Example, read_files
from scarce_jax.data.datasets import CITYSCAPES
from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.errors import InputError

SPLITS = ("train", "val", "test", "train_extra")
MASKS = {"fine": "gtFine", "coarse": "gtCoarse"}
IMAGE = "_leftImg8bit"
HIGHEST_ID = 33
"""Of labelIds; those that are none of the 19 classes are void (`labels.py` of the authors' scripts)."""

INDICES = {
    **dict.fromkeys(range(HIGHEST_ID + 1), IGNORE),
    **{native: index for index, native in enumerate(CITYSCAPES.native_ids)},
}


class Cityscapes(SegmentationBuilder):
    """Reads the splits that the source holds; an example is called as its files, "aachen_000000_000019".

    `train_extra` has coarse masks alone. The masks published for `test` are dummies, so its examples have none. Without
    any `gtCoarse`, coarse masks are simulated from the fine ones.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOLDS = (
        "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png, with gtFine/SPLIT/CITY/*_gtFine_labelIds.png and "
        "gtCoarse/SPLIT/CITY/*_gtCoarse_labelIds.png, as in Cityscapes' archives"
    )

    def describe(self) -> DatasetInfo:
        return CITYSCAPES

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        images = {split: sorted((self.source / "leftImg8bit" / split).glob(f"*/*{IMAGE}.png")) for split in SPLITS}
        images = {split: paths for split, paths in images.items() if paths}
        if not images:
            raise InputError(f"{self.source}: has no leftImg8bit/*/*/*{IMAGE}.png; expected {self.HOLDS}")
        simulate = not (self.source / "gtCoarse").is_dir()
        self.coarse_from = SIMULATED if simulate else "of the dataset (gtCoarse)"
        pairs = {split: [(image, self._masks(split, image)) for image in paths] for split, paths in images.items()}
        return {split: _examples(files, simulate) for split, files in pairs.items()}

    def _masks(self, split: str, image: pathlib.Path) -> dict[str, pathlib.Path | None]:
        """The mask files of an image; None where the whole split has none of a kind."""
        name, masks = image.stem.removesuffix(IMAGE), {}
        for field, kind in MASKS.items():
            folder = self.source / kind / split
            masks[field] = folder / image.parent.name / f"{name}_{kind}_labelIds.png"
            if split == "test" or not folder.is_dir():
                masks[field] = None
            elif not masks[field].is_file():
                raise InputError(
                    f"{masks[field]}: the {field} mask of example {name} is missing; extract {kind} whole, or leave "
                    f"out all of {folder}"
                )
        return masks


def _examples(files: list[tuple[pathlib.Path, Mapping[str, pathlib.Path | None]]], simulate: bool) -> Iterator[Example]:
    for image, masks in files:
        name = image.stem.removesuffix(IMAGE)
        yield Example(id=name, **read_files(image, masks, name, INDICES), simulate=simulate)
