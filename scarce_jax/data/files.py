"""Listing the images of a folder, reading text and JSON, checksums in JSON, and atomic writes."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import pathlib
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scarce_jax.errors import InputError, printable

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif")
"""Endings of image files, in lower case; files are compared regardless of case."""

LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "readme", "license", "licence", "notice", "changelog"}
"""Names of files, in lower case, that are never images: systems and archives leave them in folders of images."""

LITTER_FOLDERS = {"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found"}
"""Names of folders, in lower case, that systems and archives make; some hold small copies of the images."""

TEXTS = {
    ".txt", ".md", ".rst", ".json", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".html",
    ".htm", ".log", ".py", ".ipynb", ".cache", ".md5", ".sha256", ".xmp", ".aae", ".tfw", ".jgw", ".pgw", ".wld",
    ".prj",
}  # fmt: skip
"""Endings of files that stand beside images and hold none of their own, in lower case."""

_CONVERT = {
    "convert it to JPEG, and move it out of the folder: magick mogrify -format jpg FILE": (".heic", ".heif", ".hif"),
    "convert it to PNG, and move it out of the folder: magick mogrify -format png FILE": (
        ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".psd", ".exr", ".hdr", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".pam",
        ".ico", ".svg", ".pcx", ".eps", ".pdf", ".xcf", ".apng",
    ),
    "develop the raw photograph to PNG, and move it out of the folder: darktable-cli FILE NAME.png": (
        ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".raw", ".pef", ".srw",
    ),
    "write each picture as 8-bit PNG, and move it out of the folder: PIL.Image.fromarray(array).save(path)": (
        ".npy", ".npz", ".mat", ".h5", ".hdf5", ".nii", ".gz", ".dcm", ".czi", ".nd2", ".lif", ".mha",
    ),
}  # fmt: skip
"""What to do with a picture in a format that is not read -> the endings of such files."""

NOT_UTF8 = "not a text in UTF-8; if it is one in another encoding, save it again as UTF-8"

ASIDE = ".aside"
"""Suffix of a file while it is written; a crash may leave one behind."""


class FileError(InputError):
    """A file cannot be used; the parts of the message are attributes.

    Attributes:
      kind: of the fault, a key of `doctor.findings.KINDS`.
      path: the file.
      found, expected, advice: what is wrong with it, what should be there, and what to do.
    """

    def __init__(self, kind: str, path: str | os.PathLike, found: str, expected: str, advice: str):
        self.kind, self.path, self.found, self.expected, self.advice = kind, path, found, expected, advice
        super().__init__(f"{printable(path)}: {found}, expected {expected}; {advice}")


def list_images(folder: pathlib.Path, *, nested: bool = True) -> dict[str, pathlib.Path]:
    """Returns the image files of a folder by stem, sorted; {} if the folder does not exist. See `scan_images`.

    Raises:
      FileError: the first fault that `scan_images` finds.
    """
    images, faults = scan_images(folder, nested=nested)
    if faults:
        raise faults[0]
    return images


def scan_images(folder: pathlib.Path, *, nested: bool = True) -> tuple[dict[str, pathlib.Path], list[FileError]]:
    """Lists the image files of a folder, and what is wrong with its files; every command lists by this function.

    A stem is the path from the folder without the last suffix ("city/x"), in Unicode's composed form (NFC), because
    some systems write "ä" as two characters. Links are followed, also to folders; a link to a folder above itself is
    left out. So are hidden files, what systems leave behind (`LITTER`), and texts beside the images (`TEXTS`). No file
    is opened, so that it is fast where a folder has 100,000 images.

    Args:
      folder: where to look.
      nested: whether to search subfolders.

    Returns:
      Stem -> path, sorted, and the faults: a file that is no image and none of the above, a link to nothing, a name of
      unprintable characters, the stem of another file (which keeps it), a folder that cannot be read.
    """
    images: dict[str, pathlib.Path] = {}
    faults: list[FileError] = []
    if not folder.is_dir():
        return images, faults
    above = tuple(_identity(parent) for parent in folder.resolve().parents)
    for inside, entry in _walk(folder, "", nested, above, faults):
        path = pathlib.Path(entry.path)
        stem, suffix = os.path.splitext(inside)
        stem = unicodedata.normalize("NFC", stem)
        fault = _fault_of(path, stem, suffix.lower(), entry)
        if fault is None and stem in images:
            found = f"equal stems, beside {images[stem].name}"
            if images[stem].stem != path.stem:
                found += " (accents are stored in two ways)"
            advice = "rename or remove one of them"
            fault = FileError("duplicate-stem", path, found, "one file per example", advice)
        if fault is None:
            images[stem] = path
        else:
            faults.append(fault)
    return images, faults


def _walk(
    folder: pathlib.Path, inside: str, nested: bool, above: tuple[tuple[int, int], ...], faults: list[FileError]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yields the files of a folder that may be images, sorted, each with its path from where the search began.

    Args:
      folder: where to look; its path from there is `inside`, which ends in "/" unless it is empty.
      nested: whether to search subfolders.
      above: identities of the folders that lead to this one.
      faults: folders that cannot be read are added to it.
    """
    try:
        here = _identity(folder)
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        found = f"cannot be listed ({error.strerror})"
        faults.append(FileError("unreadable-file", folder, found, "a readable folder", "check its permissions"))
        return
    if here in above:
        return
    for entry in entries:
        is_folder = _is(entry.is_dir)
        if is_litter(entry.name, is_folder):
            continue
        if not is_folder:
            yield inside + entry.name, entry
        elif nested:
            yield from _walk(folder / entry.name, f"{inside}{entry.name}/", nested, (*above, here), faults)


def _identity(folder: pathlib.Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _is(what: Callable[[], bool]) -> bool:
    """`DirEntry.is_dir` or `is_file`; a link that leads to itself is neither."""
    try:
        return what()
    except OSError:
        return False


def is_litter(name: str, is_folder: bool = False) -> bool:
    """Whether a file or folder of this name is left out wherever images are listed."""
    lower = name.lower()
    if name.startswith("."):
        return True
    if is_folder:
        return lower in LITTER_FOLDERS
    return lower in LITTER or os.path.splitext(lower)[1] in TEXTS


def _fault_of(path: pathlib.Path, stem: str, suffix: str, entry: os.DirEntry[str]) -> FileError | None:
    """What is wrong with a listed file, as far as its name and kind tell."""
    if suffix not in SUFFIXES:
        other = "convert it to PNG if it is an image, or move it out of the folder"
        advice = next((advice for advice, suffixes in _CONVERT.items() if suffix in suffixes), other)
        expected = f"files ending in {', '.join(SUFFIXES)}"
        return FileError("not-an-image", path, "not an image file that is read", expected, advice)
    if printable(stem) != stem:
        found = "its name has bytes that are no UTF-8 text, or control characters"
        expected = "a name of printable text, because it becomes an id"
        return FileError("unreadable-name", path, found, expected, "rename the file and its masks")
    if not _is(entry.is_file):
        found = f"a link to {os.readlink(path)}, which is no file" if entry.is_symlink() else "no regular file"
        return FileError("unreadable-file", path, found, "an image file", "restore the file, or remove this")
    return None


def read_lines(path: pathlib.Path, expected: str) -> list[str]:
    """Reads the lines of a UTF-8 text file; raises InputError, whose message has `expected`, if that fails."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {NOT_UTF8}; expected {expected}") from error
    except OSError as error:
        raise InputError(f"{path}: not a readable text file ({error.strerror}); expected {expected}") from error


def read_json(path: pathlib.Path, expected: str = "JSON that scarce-jax wrote") -> Any:
    """Reads a JSON file; raises InputError, whose message has `expected`, if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected {expected}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {NOT_UTF8}; expected {expected}") from error
    # JSON that is nested too deeply ends in a RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error}); expected {expected}") from error


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes JSON atomically, and creates the file's folder."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as aside:
        aside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


CHECKSUM = "checksum"
"""The last key of a JSON object that `seal` made."""


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Adds a checksum to a JSON object, over all else in it. Tuples become lists."""
    plain = json.loads(json.dumps(value))
    return {**plain, CHECKSUM: _checksum(plain)}


def unseal(value: Any) -> dict[str, Any]:
    """Inverts `seal`; raises ValueError if the object has no checksum or another one."""
    if not isinstance(value, dict):
        raise ValueError(f"found a {type(value).__name__}, expected an object")
    plain = dict(value)
    stored = plain.pop(CHECKSUM, None)
    if stored is None:
        raise ValueError("it has no checksum")
    if stored != _checksum(plain):
        raise ValueError("its content does not match its checksum")
    return plain


def _checksum(plain: dict[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_checked_json(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
    """Writes a JSON object with a checksum, atomically, and creates the file's folder."""
    write_json(path, seal(value))


def read_checked_json(path: pathlib.Path, kind: Any, remedy: str = "") -> dict[str, Any]:
    """Reads a JSON object that `write_checked_json` wrote.

    Args:
      path: the file.
      kind: a dataclass or `dict` type: the object must have its fields, with values of their types, and may have
        others.
      remedy: what to do if the file is damaged, for the message.

    Raises:
      InputError: the file is missing or not JSON, its content does not match its checksum, or a key is missing or has a
        value of another type.
    """
    # Not at the top, because it takes a while and most users of this module read no such file.
    import pydantic

    advice = f"; {remedy}" if remedy else ""
    try:
        value = unseal(json.loads(path.read_bytes().decode()))
        pydantic.TypeAdapter(kind).validate_python(value)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing{advice}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}{advice}") from error
    # JSON that is nested too deeply ends in a RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: changed or damaged ({error}){advice}") from error
    return value


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary file to write to, which is renamed to `path` when the block ends without an error.

    Readers see the old file or the whole new one, even after a crash or a power cut. A link at `path` is replaced, and
    what it leads to stays as it is.

    Raises:
      OSError: the file cannot be written; its `filename` is `path`.
    """
    path = pathlib.Path(path)
    # Shortened, because a file system allows 255 bytes.
    aside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}{ASIDE}")
    with naming(path):
        # Made here, under a name that nobody knows beforehand, so that a link cannot wait there.
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        try:
            yield aside
            sync(aside)
            aside.replace(path)
            # The rename changes the folder, which must reach the disk too.
            sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink()


def discard_asides(path: pathlib.Path, seconds: float) -> None:
    """Deletes what killed writes of a file left, if it is older; younger ones may be those of another process."""
    for aside in path.parent.glob(f".{glob.escape(path.name[:40])}.*{ASIDE}"):
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


def sync(path: pathlib.Path) -> None:
    """Waits until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def find_link(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns a symbolic link in a folder or below it, or None; `folder` itself may be one."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                return pathlib.Path(entry.path)
            if entry.is_dir() and (found := find_link(pathlib.Path(entry.path))):
                return found
    return None


def is_plain_name(name: str) -> bool:
    """Whether a name stands for a file or folder directly in a folder, and leads nowhere else."""
    return name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)
