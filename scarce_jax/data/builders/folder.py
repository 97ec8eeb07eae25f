"""`folder`: the user's own images; each may have a fine mask, a coarse mask, tags, or no labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from scarce_jax.data.builders.base import SIMULATED, SegmentationBuilder
from scarce_jax.data.builders.files import Example, check_size, naming
from scarce_jax.data.builders.formats import FORMATS, Item, Layout, Options, read_source
from scarce_jax.data.images import read_encoded
from scarce_jax.data.palettes import Palettes
from scarce_jax.data.schema import IGNORE, DatasetInfo
from scarce_jax.errors import InputError


class Folder(SegmentationBuilder):
    """Reads every split that has images, in any format of `formats`. Ids are "SPLIT/NAME": splits may have equal names.

    If the source has coarse masks, they are read; otherwise they are simulated from the fine masks.

    Args:
      options: how the source is read; None finds out.
    """

    VERSION = tfds.core.Version("1.0.0")
    NAMED = True
    HOLDS = f"{FORMATS['folder'].holds}; or what {', '.join(name for name in FORMATS if name != 'folder')} have"
    layout: Layout

    def __init__(self, *, options: Options | None = None, **settings: Any):
        self.options = options or Options()
        self.flags, self.others = self.options.flags, self.options.others
        super().__init__(**settings)

    def describe(self) -> DatasetInfo:
        self.layout = read_source(self.source, self.options)
        classes = self.layout.classes
        return DatasetInfo(
            name=f"folder/{self.variant}",
            classes=classes.classes,
            palette=classes.palette,
            background=classes.background,
            splits={},
            native_ids=classes.native_ids,
            void_ids=classes.ignore,
        )

    def split_examples(self) -> Mapping[str, Iterator[Example]]:
        self.coarse_from = "of the source" if self.layout.has_coarse else SIMULATED
        if self.layout.has_tags:
            self.tags_from = "tags.csv, else the fine masks"
        used: set[int] = set()
        palettes = {"fine": Palettes(), "coarse": Palettes()}
        last = list(self.layout.splits)[-1]
        return {
            split: self._examples(split, items, palettes, used, last=split == last)
            for split, items in self.layout.splits.items()
        }

    def _examples(
        self, split: str, items: list[Item], palettes: Mapping[str, Palettes], used: set[int], *, last: bool
    ) -> Iterator[Example]:
        """Reads a split; `used` collects the class indices of all masks, and is looked at after the last split."""
        for item in items:
            try:
                example = read_item(item, f"{split}/{item.name}", palettes, simulate=not self.layout.has_coarse)
            except InputError as error:
                check = self.options.check_command(self.source)
                raise InputError(f"{error}\nWhat to do about this and all other files: {check}") from error
            for mask in (example.fine, example.coarse):
                used.update(() if mask is None else np.unique(mask).tolist())
            yield example
        if last:
            self.layout.classes.confirm(used - {IGNORE})


def read_item(item: Item, example_id: str, palettes: Mapping[str, Palettes], *, simulate: bool = True) -> Example:
    """Reads the image and the masks of an item.

    Args:
      palettes: "fine" and "coarse" -> the palettes of earlier masks, which must agree.

    Raises:
      InputError: a file is damaged or of a wrong kind, or a mask differs in size from the image.
    """
    with naming("image", example_id):
        image, size = read_encoded(item.image)
    masks = {}
    for field, mask in (("fine", item.fine), ("coarse", item.coarse)):
        if mask is not None:
            with naming("mask", example_id):
                masks[field] = mask.read(palettes[field])
            check_size(masks[field], mask, size, item.image, example_id)
    return Example(id=example_id, image=image, **masks, tags=item.tags, simulate=simulate)
