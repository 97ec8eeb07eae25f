"""The fields of an example, and the facts of a dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from annotated_types import Interval

Byte = Annotated[int, Interval(ge=0, le=255)]
NativeId = Annotated[int, Interval(ge=0, le=65535)]

IGNORE = 255
"""Label value of void pixels, which do not count: pixels without a label, and pixels outside an augmented image."""

LABEL_FIELDS = ("fine", "coarse")
"""Fields of an example that are class-index masks, uint8 [H, W]."""

OPTIONAL = (*LABEL_FIELDS, "tags")
"""Fields that an example may lack; its record then holds masks of 255 and tags of 0."""

FIELD_WORDS = {"fine": "fine mask", "coarse": "coarse mask", "tags": "list of tags"}
"""The names of fields in messages."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Facts of a dataset: from its tfds metadata if it is prepared, from `datasets.KNOWN` if it is known.

    Attributes:
      name: tfds name, with the builder config after a slash if there is one ("voc/animals").
      classes: class names, at most 255. The index of a class is its value in `fine` and `coarse`, and its place in
        `tags`.
      palette: an RGB triple (0..255) per class.
      background: index of the background class, whose tag is always 0; or None.
      splits: split name -> number of examples.
      native_ids: id of each class in the dataset's own mask files; None if it is the class index.
      void_ids: ids in the dataset's own mask files that mean void, besides 255.
      lacking: split -> field of `OPTIONAL` -> number of examples without it, if that is not 0.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    background: int | None
    splits: dict[str, int]
    native_ids: tuple[int, ...] | None = None
    lacking: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    # Not in the text from which the version of a prepared dataset is hashed: what is stored has no such ids.
    void_ids: tuple[int, ...] = dataclasses.field(default=(), repr=False)

    @property
    def indices(self) -> dict[int, int]:
        """Id in the dataset's own mask files -> class index or 255."""
        native_ids = range(len(self.classes)) if self.native_ids is None else self.native_ids
        return mask_indices(native_ids, self.void_ids)

    def having(self, split: str, field: str) -> int:
        """Number of examples of a split that have a field; 0 for an unknown split."""
        return self.splits.get(split, 0) - self.lacking.get(split, {}).get(field, 0)

    @classmethod
    def of_json(cls, facts: Mapping[str, Any], name: str, **fields: Any) -> DatasetInfo:
        """Makes it from the keys "classes", "palette", "background", "native_ids" and "void_ids" of a JSON object.

        "void_ids" is missing in files of older versions.
        """
        return cls(
            name=name,
            classes=tuple(facts["classes"]),
            palette=tuple(tuple(colour) for colour in facts["palette"]),
            background=facts["background"],
            native_ids=None if facts["native_ids"] is None else tuple(facts["native_ids"]),
            void_ids=tuple(facts.get("void_ids", ())),
            **{"splits": {}, **fields},
        )


def mask_indices(class_ids: Iterable[int], void_ids: Iterable[int]) -> dict[int, int]:
    """Id in a mask file -> class index or 255, from the id of each class and the ids of void."""
    return {**dict.fromkeys(void_ids, IGNORE), **{native: index for index, native in enumerate(class_ids)}}
