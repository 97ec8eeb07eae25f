"""The flags of `init` and `prepare` that say what a source folder does not say by itself."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Any

from scarce_jax.cli.common import Folder, Name, shown


@dataclasses.dataclass(kw_only=True)
class SourceFlags:
    """Flags for a source folder of one's own.

    Attributes:
      format: of images of your own: folder, pairs, voc, cvat, labelme, labelme2voc, label-studio, roboflow,
        supervisely or coco; default auto, which finds out.
      images: a folder of images, where they do not lie in the source.
      masks: a folder of the masks of --images.
      coarse: a folder of coarse masks, beside --masks.
      classes: a file that lists the classes, in place of the source's (classes.json, labelmap.txt, _classes.csv, or
        one name per line).
      val: where there is no split val: the share of the labelled images that become it, such as 0.2, which init takes
        by default, or a file that lists them.
    """

    format: Name = None
    images: Folder = None
    masks: Folder = None
    coarse: Folder = None
    classes: Annotated[pathlib.Path | None, shown("FILE")] = None
    val: Annotated[str | None, shown("SHARE|FILE")] = None

    def given(self) -> dict[str, Any]:
        """The flags that are given, which are arguments of `data.builders.formats.Options`."""
        return {name: value for name, value in vars(self).items() if value is not None}
