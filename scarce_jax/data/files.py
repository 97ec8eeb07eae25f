"""Files: listing the images of a folder, and writing so that a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from scarce_jax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Image files that a folder is searched for; compared in lower case."""

ASIDE = ".aside"
"""Suffix of a file that is being written; a crash may leave one behind."""


def list_images(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Stem -> image file, sorted. Subfolders are searched and part of the stem; hidden files are left out.

    A folder that does not exist gives {}.

    Raises:
      InputError: two files have one stem, or a file is no image.
    """
    images: dict[str, pathlib.Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or path.is_dir():
            continue
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path}: not an image file; expected files ending in {', '.join(SUFFIXES)}")
        stem = inside.with_suffix("").as_posix()
        if stem in images:
            raise InputError(f"{images[stem]} and {path}: equal stems are one example; rename or remove one of them")
        images[stem] = path
    return images


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a path beside `path` to write to; when the block ends without an error, that file takes `path`'s place.

    A reader finds the old file or the whole new one, also after a crash or a power cut.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}{ASIDE}")
    try:
        yield aside
        _sync(aside)
        aside.replace(path)
        # The rename is an entry of the folder, which has to reach the disk too.
        _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
