"""`scenes`: synthetic reef pictures, which need no download.

Twelve classes at 256x256. Three kinds of fish have one shape and differ in texture; the other classes differ in shape
and have any texture. The creatures have the colours of the ground, the stones and the weeds of the same picture. They
have fins, arms, thin legs and holes, occlude one another, and are cut off by the border.

`scenes/coloured`: the same at 128x128, with more pictures. Nearly all creatures have bright colours of their kind, on
pale ground, so that a small net learns them from scratch in minutes. It does not learn `scenes`, where shape alone
identifies most classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SegmentationBuilder
from scarce_jax.data.builders.files import Example, encode_image
from scarce_jax.data.builders.scenes.compose import draw_scene
from scarce_jax.data.coarse import CoarseSettings
from scarce_jax.data.datasets import COLOURED_SCENES, SCENES


class Scenes(SegmentationBuilder):
    """Draws every example from its split and number alone, independent of the seed of a run."""

    VERSION = tfds.core.Version("1.0.0")
    # Slightly more erosion than the default, because the creatures are rounder than the objects of a street.
    COARSE = CoarseSettings(erosion=8 / 362)
    SIZES: ClassVar[Mapping[str, int]] = SCENES.splits
    DRAWN: ClassVar[Mapping[str, float]] = {}
    FACTS = SCENES

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        return {split: self._draw(split, count) for split, count in self.SIZES.items()}

    def _draw(self, split: str, count: int) -> Iterator[Example]:
        for index in range(count):
            image, fine = draw_scene(split, index, version=str(self.VERSION), **self.DRAWN)
            yield Example(id=f"{split}_{index:04d}", image=encode_image(image), fine=fine)


class ColouredScenes(Scenes):
    """The variant whose colours depend on the class."""

    name = "scenes"
    SIZES = COLOURED_SCENES.splits
    FACTS = COLOURED_SCENES
    DRAWN: ClassVar[Mapping[str, float]] = {"size": 128, "coloured": 0.95}
