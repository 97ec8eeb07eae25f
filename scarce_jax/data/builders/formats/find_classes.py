"""Which file of a source lists its classes."""

from __future__ import annotations

import pathlib
import shlex

from scarce_jax.data.builders.formats.class_files import CLASS_FILES, read_class_file
from scarce_jax.data.builders.formats.classes import Classes
from scarce_jax.data.builders.formats.options import Options
from scarce_jax.errors import InputError

FILES = ("classes.json", "labelmap.txt", "_classes.csv", "class_names.txt", "classes.txt", "labels.txt", "names.txt")
"""Files of classes by the names that tools and people give them."""


def class_file(folder: pathlib.Path, options: Options) -> pathlib.Path | None:
    """The file of `--classes`, else classes.json, else another of `FILES` in a folder, else None.

    Raises:
      InputError: several files list different classes.
    """
    chosen = options.path("classes")
    if chosen is not None:
        return chosen
    files = [folder / name for name in FILES if (folder / name).is_file()]
    if len(files) > 1 and files[0].name != FILES[0]:
        first, *others = [(path, read_class_file(path)) for path in files]
        for path, classes in others:
            if (classes.classes, classes.indices) != (first[1].classes, first[1].indices):
                raise InputError(f"{first[0]} and {path}: list different classes; choose one with --classes FILE")
    return files[0] if files else None


def find_classes(folder: pathlib.Path, options: Options, expected: str) -> Classes:
    """Reads the classes of a source.

    Raises:
      InputError: no file lists them, or it is wrong.
    """
    path = class_file(folder, options)
    if path is None:
        proposed = f". `scarce-jax init {shlex.quote(str(folder))}` proposes a classes.json"
        raise InputError(
            f"{folder}: no file lists the classes; expected {expected}. Or give --classes FILE: {CLASS_FILES}"
            f"{proposed if options.masks is None else ''}"
        )
    return read_class_file(path)
