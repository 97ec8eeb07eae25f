"""What lies in a source folder: its folders, image files and JSON files, to tell formats apart."""

from __future__ import annotations

import collections
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from scarce_jax.data.files import read_json
from scarce_jax.data.image_files import SUFFIXES, is_litter, scan_images, walk
from scarce_jax.errors import InputError, plural

SAMPLE = 3
"""JSON files of a folder that are opened to see what they are."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "jpegimages", "photos")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "ann_dir", "annots", "gt", "groundtruth",
    "ground_truth", "segmentationclass", "segmentation", "targets",
)  # fmt: skip
"""Names of folders in lower case."""


class Tree:
    """The folders of a source, without hidden ones; links to folders are followed.

    Attributes:
      root: the source folder.
      names: folder (relative, "." is the root) -> names of its files, sorted.
    """

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.names: dict[str, list[str]] = {}
        for folder, names in walk(root, functools.partial(is_litter, is_folder=True)):
            self.names[folder] = [name for name in names if not name.startswith(".")]

    def has(self, *files: str) -> bool:
        """Whether all these files or folders exist, relative to the root."""
        return all((self.root / file).exists() for file in files)

    def folders(self) -> list[str]:
        """The folders directly in the root."""
        return [folder for folder in self.names if folder != "." and "/" not in folder]

    def images(self, folder: str) -> int:
        """The number of image files in a folder of the root and below it."""
        return sum(
            pathlib.PurePosixPath(name).suffix.lower() in SUFFIXES
            for place, names in self.names.items()
            if place.partition("/")[0] == folder
            for name in names
        )

    def named(self, names: tuple[str, ...]) -> list[str]:
        """The folders directly in the root that have images, and a name that is, in lower case, in `names`."""
        return [folder for folder in self.folders() if folder.lower() in names and self.images(folder)]

    @functools.cached_property
    def json_kinds(self) -> dict[str, list[pathlib.Path]]:
        """Kind of JSON file (see `kind_of`), or "unreadable" -> those among the first `SAMPLE` of each folder."""
        kinds: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
        for folder, names in self.names.items():
            for name in [name for name in names if name.lower().endswith(".json")][:SAMPLE]:
                path = self.root / folder / name
                content = load(path)
                kind = "unreadable" if content is None else kind_of(content)
                if kind:
                    kinds[kind].append(path)
        return dict(kinds)

    def json_of(self, kind: str, expected: str) -> Iterator[tuple[pathlib.Path, Any]]:
        """All JSON files of a kind with their contents; raises InputError if one is not readable JSON."""
        for folder, names in sorted(self.names.items()):
            for name in names:
                path = self.root / folder / name
                if name.lower().endswith(".json"):
                    content = read(path, expected)
                    if kind_of(content) == kind:
                        yield path, content

    def content(self) -> str:
        """The folders with the numbers of their files by suffix, for messages."""
        lines = []
        for folder, names in self.names.items():
            suffixes = collections.Counter(pathlib.PurePosixPath(name).suffix.lower() or "no suffix" for name in names)
            if suffixes:
                counted = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(3))
                lines.append(f"{folder} ({counted})")
        more = f" and {plural(len(lines) - 10, 'more folder')}" if len(lines) > 10 else ""
        return "; ".join(lines[:10]) + more if lines else "no file"


@functools.lru_cache(maxsize=2)
def _load(path: pathlib.Path, changed: int) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def load(path: pathlib.Path) -> Any:
    """The content of a JSON file; None if it is not readable JSON."""
    try:
        return _load(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, RecursionError):
        return None


def read(path: pathlib.Path, expected: str) -> Any:
    """Reads a JSON file, once for telling its kind and reading it; raises InputError as `read_json` does."""
    content = load(path)
    return read_json(path, expected) if content is None else content


def kind_of(content: Any) -> str:
    """Tells which tool's JSON this is: "labelme", "coco", "label-studio", "supervisely", or ""."""
    if isinstance(content, dict):
        if isinstance(content.get("shapes"), list) and {"imagePath", "imageData"} & content.keys():
            return "labelme"
        if all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories")):
            return "coco"
        classes = content.get("classes")
        if isinstance(classes, list) and classes and all(isinstance(x, dict) and "title" in x for x in classes):
            return "supervisely"
    if isinstance(content, list) and content and all(isinstance(task, dict) for task in content):
        if all("data" in task and "annotations" in task for task in content):
            return "label-studio"
        if any("annotation_id" in task and "annotator" in task for task in content):
            return "label-studio"
    return ""


def pictures(folder: pathlib.Path, *, nested: bool = True) -> dict[str, pathlib.Path]:
    """The image files of a folder by stem, as `list_images`, where NumPy files may lie beside them.

    Raises:
      InputError: the folder is missing, or as in `list_images`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file' if folder.exists() else 'missing'}, expected a folder of image files")
    images, faults = scan_images(folder, nested=nested)
    wrong = [fault for fault in faults if pathlib.Path(fault.path).suffix.lower() != ".npy"]
    if wrong:
        raise wrong[0]
    return images
