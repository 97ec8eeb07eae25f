"""`scarce-jax check`: finds what is wrong with images and masks, by file."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import tyro

from scarce_jax.cli.common import (
    Folder,
    Name,
    Switch,
    command_line,
    dataset_name,
    next_commands,
    parse,
    print_json,
    shown,
)

if TYPE_CHECKING:
    from scarce_jax.doctor import Report


@dataclasses.dataclass(kw_only=True)
class Options:
    """Flags of `check`: a DATASET, or --source, or --images with --masks.

    Attributes:
      dataset: a prepared dataset.
      data_dir: folder of prepared datasets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      source: a folder for `prepare folder/NAME`; says its format, and what prepare would make of it.
      format: the format of --source, such as cvat or coco; default auto.
      images: a folder of images; with --source, where they do not lie there.
      masks: a folder of their masks, with the names of the images.
      coarse: a folder of their coarse masks, with the names of the images.
      classes: the number of classes, or a file that lists them (classes.json, labelmap.txt, _classes.csv, names).
      val: with --source, the share of images or the list that --val of prepare would take.
      ignore: a further id of void pixels in the masks; 255 always is one.
      json: end standard output with one JSON object.
    """

    dataset: Annotated[str | None, tyro.conf.Positional, shown("DATASET")] = None
    data_dir: Folder = None
    source: Folder = None
    format: Name = None
    images: Folder = None
    masks: Folder = None
    coarse: Folder = None
    classes: Annotated[str | None, shown("N|FILE")] = None
    val: Annotated[str | None, shown("SHARE|FILE")] = None
    ignore: Annotated[int, tyro.conf.arg(metavar="ID")] = 255
    json: Switch = False


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns 1 if there is any problem, warnings apart."""
    options = parse(Options, argv, "check", "Reads every image and mask, and finds what is wrong with them.")
    fault = _usage_fault(options)
    if fault:
        print(f"scarce-jax check: {fault}", file=sys.stderr)
        return 2
    from scarce_jax import doctor

    if options.dataset is not None:
        report = doctor.check_prepared(options.dataset, options.data_dir)
    elif options.source is not None:
        from scarce_jax.data.builders.formats import Options as SourceOptions

        fields = {"images": options.images, "classes": options.classes, "val": options.val}
        report = doctor.check_source(options.source, SourceOptions(format=options.format or "auto", **fields))
    else:
        report = doctor.check_folders(
            options.images, options.masks, options.coarse, classes=options.classes, ignore=options.ignore
        )
    print(report)
    if options.json:
        print_json(report.to_json())
    else:
        next_commands(*(_next(options, report) if report.clean else (command_line("check", *argv),)))
    return 0 if report.clean else 1


def _next(options: Options, report: Report) -> Iterator[str]:
    """The command that uses what was checked."""
    if options.dataset is not None:
        from scarce_jax.cli.prepare import train_commands
        from scarce_jax.data.builders import load_prepared

        yield from train_commands(load_prepared(options.dataset, options.data_dir), options.data_dir)
        return
    from scarce_jax.data.builders.formats.splits import NO_VAL, canonical

    name = f"folder/{dataset_name(options.source or options.images)}"
    flags = {key: getattr(options, key) for key in ("source", "format", "images", "masks", "coarse", "classes", "val")}
    undivided = NO_VAL in report.notes
    if options.masks is not None:
        # `prepare` reads the number of classes, or an id of void, in a file.
        listed = options.classes is not None and not options.classes.isdecimal() and options.ignore == 255
        flags["classes"] = options.classes if listed else "CLASSES_FILE"
        undivided = not any(canonical(path.name) for path in options.images.expanduser().iterdir() if path.is_dir())
    if undivided and report.masks > 1:
        flags["val"] = "0.2"
    yield command_line("prepare", name, **flags)


def _usage_fault(options: Options) -> str:
    """What is wrong with the combination of flags, or an empty text."""
    ways = {"DATASET": options.dataset, "--source": options.source, "--images": options.images}
    used = [name for name, value in ways.items() if value is not None]
    if used == ["--source", "--images"]:
        used = ["--source"]
    if len(used) != 1:
        names = " and ".join(used) or "none"
        return f"expected one of DATASET, --source DIR, or --images DIR --masks DIR; got {names}"
    folders = {"--masks": options.masks, "--coarse": options.coarse}
    folders["--ignore"] = options.ignore if options.ignore != 255 else None
    of_source = {"--format": options.format, "--val": options.val}
    wrong = {
        "DATASET": {**folders, **of_source, "--classes": options.classes},
        "--source": folders,
        "--images": of_source,
    }[used[0]]
    extra = [name for name, value in wrong.items() if value is not None]
    if extra:
        only = "--source" if extra[0] in of_source else "--images"
        return f"{', '.join(extra)}: for {only} only; leave it out with {used[0]}"
    if used == ["--images"] and options.masks is None:
        return "--images needs --masks DIR, the folder of their masks"
    return (
        f"--data-dir is for DATASET only; leave it out with {used[0]}"
        if used != ["DATASET"] and options.data_dir
        else ""
    )
