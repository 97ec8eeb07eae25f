"""Image files of folders: which files are images, how they are listed, and what is wrong with one."""

from __future__ import annotations

import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterator

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
        stem = composed(stem)
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


def walk(root: pathlib.Path, is_left_out: Callable[[str], bool]) -> Iterator[tuple[str, list[str]]]:
    """Yields a folder and all below it, each as its path from there ("." first), with the names of its files, sorted.

    Nothing is yielded if the folder does not exist. Links to folders are followed; a link to a folder above itself is
    left out.

    Args:
      root: where to begin.
      is_left_out: whether a folder of this name is left out, with all in it.
    """
    if not root.is_dir():
        return
    above = {str(root): tuple(_identity(parent) for parent in root.resolve().parents)}
    for folder, folders, files in os.walk(root, followlinks=True):
        here, before = _identity(pathlib.Path(folder)), above.pop(folder)
        folders[:] = [] if here in before else sorted(name for name in folders if not is_left_out(name))
        if here not in before:
            above |= {os.path.join(folder, name): (*before, here) for name in folders}
            yield pathlib.Path(folder).relative_to(root).as_posix(), sorted(files)


def _identity(folder: pathlib.Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _is(what: Callable[[], bool]) -> bool:
    """`DirEntry.is_dir` or `is_file`; a link that leads to itself is neither."""
    try:
        return what()
    except OSError:
        return False


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC), as stems have it: some systems and tools store accents apart."""
    return unicodedata.normalize("NFC", name)


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
