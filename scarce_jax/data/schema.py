"""The fields of an example, and the facts of a dataset."""

from __future__ import annotations

import dataclasses

IGNORE = 255
"""Label value of pixels that count nowhere: void in `fine`, unlabelled in `coarse`, outside a warped image."""

LABEL_FIELDS = ("fine", "coarse")
"""Fields of an example that are class-index masks, uint8 [H, W]."""

OPTIONAL = (*LABEL_FIELDS, "tags")
"""Fields that an example may lack: stored masks are 255 then, and tags 0."""

FIELD_WORDS = {"fine": "fine mask", "coarse": "coarse mask", "tags": "list of tags"}
"""What messages call them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Facts of a prepared dataset; they stand in its tfds metadata and, of known datasets, in `datasets.KNOWN`.

    Attributes:
      name: tfds name, with the builder config after a slash where there is one ("voc/animals").
      classes: class names; the index is the value in `fine`, `coarse` and `tags`. At most 255.
      palette: one RGB triple (0..255) per class.
      background: index of the background class, whose tag is always 0, or None.
      splits: split name -> number of examples.
      native_ids: for each class the id it has in the dataset's own mask files, None where equal to the index.
      lacking: split -> field of `OPTIONAL` -> number of examples that do not have it, where that is not 0.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    background: int | None
    splits: dict[str, int]
    native_ids: tuple[int, ...] | None = None
    lacking: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def having(self, split: str, field: str) -> int:
        """How many examples of a split have a field; 0 for a split that is not there."""
        return self.splits.get(split, 0) - self.lacking.get(split, {}).get(field, 0)
