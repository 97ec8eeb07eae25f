"""Cityscapes, 19 classes at 2048x1024, in the layout of its published archives."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SIMULATED, SegmentationBuilder
from scarce_jax.data.builders.files import Example, Files, read_examples
from scarce_jax.data.datasets import CITYSCAPES
from scarce_jax.data.image_files import list_images
from scarce_jax.errors import InputError

SPLITS = ("train", "val", "test", "train_extra")
MASKS = {"fine": "gtFine", "coarse": "gtCoarse"}
IMAGE = "_leftImg8bit"


class Cityscapes(SegmentationBuilder):
    """Reads the splits that the source holds. Ids are those of the files, such as "aachen_000000_000019".

    `train_extra` has coarse masks only. The published masks of `test` are placeholders, so its examples have none. If
    the source has no `gtCoarse`, coarse masks are simulated from the fine ones.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOLDS = (
        "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png, with gtFine/SPLIT/CITY/*_gtFine_labelIds.png and "
        "gtCoarse/SPLIT/CITY/*_gtCoarse_labelIds.png, as in Cityscapes' archives"
    )
    FACTS = CITYSCAPES

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        images = {}
        for split in SPLITS:
            listed = list_images(self.source / "leftImg8bit" / split)
            images[split] = [path for stem, path in listed.items() if stem.endswith(IMAGE)]
        images = {split: paths for split, paths in images.items() if paths}
        if not images:
            raise InputError(f"{self.source}: has no leftImg8bit/*/*/*{IMAGE}.png; expected {self.HOLDS}")
        simulate = not (self.source / "gtCoarse").is_dir()
        self.coarse_from = SIMULATED if simulate else "of the dataset (gtCoarse)"
        files = {split: [self._files(split, image) for image in paths] for split, paths in images.items()}
        return {split: read_examples(listed, CITYSCAPES.indices, simulate=simulate) for split, listed in files.items()}

    def _files(self, split: str, image: pathlib.Path) -> Files:
        name, masks = image.stem.removesuffix(IMAGE), {}
        for field, kind in MASKS.items():
            folder = self.source / kind / split
            masks[field] = folder / image.parent.name / f"{name}_{kind}_labelIds.png"
            # A kind of mask may be missing for a whole split.
            if split == "test" or not folder.is_dir():
                masks[field] = None
            elif not masks[field].is_file():
                raise InputError(
                    f"{masks[field]}: the {field} mask of example {name} is missing; extract {kind} completely, or "
                    f"remove all of {folder}"
                )
        return Files(id=name, image=image, masks=masks)
