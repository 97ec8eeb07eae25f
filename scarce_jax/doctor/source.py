"""The classes of the command's flags, and the examples of a source folder of the `folder` builder."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from scarce_jax.data.builders.folder import CLASSES, IMAGES, MASKS, Folder, find_splits, find_tags
from scarce_jax.data.builders.folder_tables import read_classes
from scarce_jax.data.files import scan_images
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor.facts import Example, Expected
from scarce_jax.doctor.findings import Finding, fault
from scarce_jax.doctor.layouts import pair_folders
from scarce_jax.errors import InputError, plural


def expected_classes(classes: str | int | os.PathLike[str]) -> Expected:
    """The classes of `--classes`: their number, a `classes.json`, or a text file with one name per line.

    Raises:
      InputError: `classes` is none of these, or there are not 1 to 255 classes.
    """
    text = str(classes)
    if text.isdecimal():
        names = [f"class {k}" for k in range(int(text))]
    else:
        path = pathlib.Path(classes).expanduser()
        if path.suffix.lower() == ".json":
            return _expected(path)
        try:
            content = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"--classes {classes}: not a number and not a readable file ({error}); expected the number of classes, "
                "a classes.json, or a text file with one class name per line"
            ) from error
        names = [line.strip() for line in content.splitlines() if line.strip()]
    if not 1 <= len(names) <= IGNORE:
        raise InputError(f"--classes {classes}: {len(names)} classes, expected 1 to 255")
    return Expected(names=tuple(names))


def source_examples(source: pathlib.Path, faults: list[Finding]) -> tuple[list[Example], Expected]:
    """The examples of all splits with their tags, and what their masks should hold.

    Args:
      faults: the list to which faults of file names, folder names and tags.csv are added.

    Raises:
      InputError: classes.json is missing or wrong, there is no split, or a split has no image.
    """
    if not source.is_dir():
        state = "a file" if source.exists() else "missing"
        raise InputError(f"--source {source}: {state}, expected a folder that holds {Folder.HOLDS}")
    expected = _expected(source / CLASSES)
    examples: list[Example] = []
    images: dict[str, dict[str, pathlib.Path]] = {}
    for split in find_splits(source):
        masks, coarse = (
            folder if folder.is_dir() else None for folder in map((source / split).joinpath, MASKS.values())
        )
        here = pair_folders(source / split / IMAGES, masks, coarse, split, faults)
        images[split] = {example.name: example.image for example in here}
        examples += here
        _find_unread(source / split, faults)
    try:
        tags = find_tags(source, read_classes(source / CLASSES), images)
    except InputError as error:
        file, _, observed = str(error).partition(", ")
        faults.append(fault("tags-file", file, observed or str(error)))
        return examples, expected
    indices = {name: frozenset(row.nonzero()[0].tolist()) for name, row in tags.items()}
    return [dataclasses.replace(x, tags=indices.get(f"{x.split}/{x.name}")) for x in examples], expected


def _find_unread(split: pathlib.Path, faults: list[Finding]) -> None:
    """Adds folders of images that no command reads: masks in `labels` would leave every image unlabelled."""
    for folder in sorted(path for path in split.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if folder.name in (IMAGES, *MASKS.values()):
            continue
        count = len(scan_images(folder)[0])
        if count:
            observed = f"{plural(count, 'image file')} in a folder that is not read"
            advice = f"rename it to {MASKS['fine']} if these are masks, or move it out of the split"
            certain = not (split / MASKS["fine"]).is_dir()
            faults.append(fault("folder-not-read", folder, observed, advice=advice, certain=certain))


def _expected(path: pathlib.Path) -> Expected:
    classes = read_classes(path)
    return Expected(names=classes.classes, background=classes.background, ignore=classes.ignore)
