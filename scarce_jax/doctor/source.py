"""What the masks should hold, from the command's flags; and the examples of a source folder of the `folder` builder."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from scarce_jax.data.builders.folder import CLASSES, IMAGES, MASKS, Folder, find_splits, find_tags
from scarce_jax.data.builders.folder_files import Classes, read_classes
from scarce_jax.data.files import SUFFIXES
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.examine import Example
from scarce_jax.doctor.ids import Expected
from scarce_jax.doctor.layouts import pair_folders
from scarce_jax.doctor.report import Findings, plural
from scarce_jax.errors import InputError


def expected_classes(classes: str | int | os.PathLike[str]) -> Expected:
    """What `--classes` says: a number, a `classes.json`, or a text file with one name a line.

    Raises:
      InputError: it is none of these, or not 1 to 255 classes.
    """
    text = str(classes)
    if text.isdecimal():
        names = [f"class {k}" for k in range(int(text))]
    else:
        path = pathlib.Path(classes).expanduser()
        if path.suffix.lower() == ".json":
            return _expected(read_classes(path))
        try:
            content = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"--classes {classes}: not a number and not a readable file ({error}); expected the number of classes, "
                "a classes.json, or a text file with one class name a line"
            ) from error
        names = [line.strip() for line in content.splitlines() if line.strip()]
    if not 1 <= len(names) <= IGNORE:
        raise InputError(f"--classes {classes}: {len(names)} classes, expected 1 to 255")
    return Expected(names=tuple(names))


def source_examples(source: pathlib.Path, findings: Findings) -> tuple[list[Example], Expected, dict[str, object]]:
    """The examples of all splits with their tags, what their masks should hold, and each split's mask folder.

    Raises:
      InputError: classes.json is missing or wrong, there is no split, or one has no image.
    """
    if not source.is_dir():
        state = "a file" if source.exists() else "missing"
        raise InputError(f"--source {source}: {state}, expected a folder that holds {Folder.HOLDS}")
    classes = read_classes(source / CLASSES)
    examples: list[Example] = []
    places: dict[str, object] = {}
    for split in find_splits(source):
        folders = [source / split / kind for kind in MASKS.values()]
        masks, coarse = (folder if folder.is_dir() else None for folder in folders)
        examples += pair_folders(source / split / IMAGES, masks, coarse, split, findings)
        places[split] = masks or source / split
        _find_unread(source / split, findings)
    images: dict[str, dict[str, pathlib.Path]] = {split: {} for split in places}
    for example in examples:
        images[example.split][example.name] = example.image
    try:
        tags = find_tags(source, classes, images)
    except InputError as error:
        file, _, fault = str(error).partition(", ")
        advice = "correct it, and check again: the lines after it were not read, and no tag was compared with a mask"
        findings.add("tags-file", file, fault or str(error), expected="lines id,class;class", advice=advice)
        tags = {}
    classes_of = {name: frozenset(row.nonzero()[0].tolist()) for name, row in tags.items()}
    tagged = [dataclasses.replace(x, tags=classes_of.get(f"{x.split}/{x.name}")) for x in examples]
    return tagged, _expected(classes), places


def _find_unread(split: pathlib.Path, findings: Findings) -> None:
    """Folders of images that no command reads: masks in `labels` would leave every image unlabelled."""
    read = (IMAGES, *MASKS.values())
    for folder in sorted(path for path in split.iterdir() if path.is_dir() and not path.name.startswith(".")):
        count = sum(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")) if folder.name not in read else 0
        if count:
            findings.add(
                "folder-not-read",
                folder,
                f"{plural(count, 'image file')} in a folder that is not read",
                expected=f"masks in a folder {MASKS['fine']}, coarse masks in a folder {MASKS['coarse']}",
                advice=f"rename it to {MASKS['fine']} if these are masks, or move it out of the split",
                certain=not (split / MASKS["fine"]).is_dir(),
            )


def _expected(classes: Classes) -> Expected:
    return Expected(
        names=classes.classes, palette=classes.palette, background=classes.background, ignore=classes.ignore
    )
