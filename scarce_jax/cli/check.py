"""`scarce-jax check`: what is wrong with images and masks, by file."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from scarce_jax.cli.common import Folder, Name, Switch, parse, print_json


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `check`: a DATASET, or --source, or --images with --masks.

    Attributes:
      dataset: a prepared dataset.
      data_dir: prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      source: a folder as `prepare folder/NAME` takes it: classes.json, and SPLIT/images, SPLIT/masks, SPLIT/coarse.
      images: a folder of images.
      masks: a folder of their masks, named as the images.
      coarse: a folder of their coarse masks, named as the images.
      classes: the number of classes, or a file of their names (classes.json, or one name a line).
      ignore: the id of void pixels in the masks; 255 always is one.
      json: end standard output with one JSON object.
    """

    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET", help_behavior_hint="")] = None
    data_dir: Folder = None
    source: Folder = None
    images: Folder = None
    masks: Folder = None
    coarse: Folder = None
    classes: Annotated[Name, tyro.conf.arg(metavar="N|FILE", help_behavior_hint="")] = None
    ignore: Annotated[int, tyro.conf.arg(metavar="ID")] = 255
    json: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command; 1 where anything is wrong, warnings apart."""
    options = parse(Options, argv, "check", "Reads every image and mask, and says what is wrong with them.")
    wrong = _usage_fault(options)
    if wrong:
        print(f"scarce-jax check: {wrong}", file=sys.stderr)
        return 2
    from scarce_jax import doctor

    if options.dataset is not None:
        report = doctor.check_prepared(options.dataset, options.data_dir)
    elif options.source is not None:
        report = doctor.check_source(options.source)
    else:
        report = doctor.check_folders(
            options.images, options.masks, options.coarse, classes=options.classes, ignore=options.ignore
        )
    print(report)
    if options.json:
        print_json(report.to_json())
    return 0 if report.clean else 1


def _usage_fault(options: Options) -> str:
    """What is missing or too much among the flags, in words; empty where nothing is."""
    ways = {"DATASET": options.dataset, "--source": options.source, "--images": options.images}
    used = [name for name, value in ways.items() if value is not None]
    if len(used) != 1:
        names = " and ".join(used) or "none"
        return f"expected one of DATASET, --source DIR, or --images DIR --masks DIR; got {names}"
    loose = {"--masks": options.masks, "--coarse": options.coarse, "--classes": options.classes}
    loose["--ignore"] = options.ignore if options.ignore != 255 else None
    extra = [name for name, value in loose.items() if value is not None]
    if used == ["--images"]:
        return "" if options.masks is not None else "--images needs --masks DIR, the folder of their masks"
    if extra:
        return f"{', '.join(extra)}: for --images only; {used[0]} knows its masks and classes"
    return f"--data-dir is for DATASET only, not for {used[0]}" if used == ["--source"] and options.data_dir else ""
