"""`scenes`: reef pictures drawn by a program, to try everything on without a download.

Twelve classes at 256x256. Three kinds of fish share one shape and differ by texture; the other classes differ by shape
and wear any texture; all share their colours with the ground, the stones and the weeds of the same picture. Objects
have fins, arms, thin legs and holes, hide one another, and are cut off by the border.

`scenes/coloured`: the same at 128x128, more of them, nearly all creatures wear bright colours of their kind before pale
ground. A small net learns these from scratch in minutes, which those of `scenes`, told by shape alone, it does not.
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
from scarce_jax.data.schema import DatasetInfo


class Scenes(SegmentationBuilder):
    """Draws every example from its split and number alone: no seed of a run changes it."""

    VERSION = tfds.core.Version("1.0.0")
    # A little more erosion than the default: the creatures are rounder than what streets are made of.
    COARSE = CoarseSettings(erosion=8 / 362)
    SIZES: ClassVar[Mapping[str, int]] = SCENES.splits
    DRAWN: ClassVar[Mapping[str, float]] = {}

    def describe(self) -> DatasetInfo:
        return SCENES

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        return {split: self._draw(split, count) for split, count in self.SIZES.items()}

    def _draw(self, split: str, count: int) -> Iterator[Example]:
        for index in range(count):
            image, fine = draw_scene(split, index, version=str(self.VERSION), **self.DRAWN)
            yield Example(id=f"{split}_{index:04d}", image=encode_image(image), fine=fine)


class ColouredScenes(Scenes):
    """The variant whose colours say something of the class."""

    name = "scenes"
    SIZES = COLOURED_SCENES.splits
    DRAWN: ClassVar[Mapping[str, float]] = {"size": 128, "coloured": 0.95}

    def describe(self) -> DatasetInfo:
        return COLOURED_SCENES
