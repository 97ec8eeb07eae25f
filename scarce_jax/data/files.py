"""Listing the images of a folder, reading text and JSON, and atomic writes."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from scarce_jax.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of image files, in lower case; files are compared regardless of case."""

ASIDE = ".aside"
"""Suffix of a file while it is written; a crash may leave one behind."""


def list_images(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the image files of a folder by stem, sorted; {} if the folder does not exist.

    Subfolders are searched too, and their names are part of the stem ("city/x"). Hidden files are skipped.

    Raises:
      InputError: two files have the same stem, or a file is not an image.
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
            raise InputError(
                f"{images[stem]} and {path}: equal stems, expected one file per example; rename or remove one of them"
            )
        images[stem] = path
    return images


def list_folder(folder: pathlib.Path) -> dict[str, str]:
    """Returns the names of the image files of a folder by stem; {} if the folder does not exist.

    Subfolders, hidden files and other files are left out. The folder is read once, and no file is looked at, so that it
    is fast where a folder has 100,000 images.

    Raises:
      InputError: two files have the same stem.
    """
    names: dict[str, str] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        stem, suffix = os.path.splitext(name)
        if name.startswith(".") or suffix.lower() not in SUFFIXES:
            continue
        if stem in names:
            raise InputError(
                f"{folder / names[stem]} and {folder / name}: equal stems, expected one file per example; rename or "
                "remove one of them"
            )
        names[stem] = name
    return names


def read_lines(path: pathlib.Path, expected: str) -> list[str]:
    """Reads the lines of a UTF-8 text file; raises InputError, whose message has `expected`, if that fails."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error}); expected {expected}") from error


def read_json(path: pathlib.Path, expected: str = "JSON that scarce-jax wrote") -> Any:
    """Reads a JSON file; raises InputError, whose message has `expected`, if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected {expected}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error}); expected {expected}") from error


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes JSON atomically, and creates the file's folder."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as aside:
        aside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path to write to, which is renamed to `path` when the block ends without an error.

    Readers see the old file or the whole new one, even after a crash or a power cut.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}{ASIDE}")
    with naming(path):
        try:
            yield aside
            _sync(aside)
            aside.replace(path)
            # The rename changes the folder, which must reach the disk too.
            _sync(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def discard_asides(path: pathlib.Path, seconds: float) -> None:
    """Deletes what killed writes of a file left, if it is older; younger ones may be those of another process."""
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*{ASIDE}"):
        with contextlib.suppress(OSError):
            if time.time() - aside.lstat().st_mtime > seconds:
                aside.unlink()


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Gives errors of the file system inside the block the path: those of a write name no file, others may name one
    aside.
    """
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def as_os_error(error: RuntimeError) -> Exception:
    """Returns the error of the file system that another library's error tells in its text; `error` if it tells none."""
    told = [code for code in errno.errorcode if os.strerror(code) in str(error)]
    return OSError(told[0], os.strerror(told[0])) if told else error


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
