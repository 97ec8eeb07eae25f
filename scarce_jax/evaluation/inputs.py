"""The images to predict: files, or those of a split of a prepared dataset."""

from __future__ import annotations

import dataclasses
import logging
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from scarce_jax.data.decoding import read_size
from scarce_jax.data.image_files import SUFFIXES, composed, scan_images
from scarce_jax.data.images import read_image
from scarce_jax.data.source import Reader
from scarce_jax.errors import InputError, plural

log = logging.getLogger("scarce_jax")


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image file to predict.

    Attributes:
      path: the file.
      name: of its pictures below the folder that they are written to, without suffix ("cam1/x").
    """

    path: pathlib.Path
    name: str

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> np.ndarray:
        """The image, uint8 [H, W, 3]; raises InputError if it cannot be read."""
        return read_image(self.path)

    def count_pixels(self) -> int:
        """Pixels by the file's header; 0 if it cannot be read, which is told when the image is."""
        try:
            return math.prod(read_size(self.path))
        except InputError:
            return 0


@dataclasses.dataclass(frozen=True)
class SplitImage:
    """An image of a prepared dataset; `path` is None.

    Attributes:
      reader: of the split.
      position: of the example.
    """

    reader: Reader
    position: int
    path = None

    @property
    def name(self) -> str:
        """The id of the example."""
        return self.reader.ids[self.position]

    def __str__(self) -> str:
        return f"example {self.name} of {self.reader.dataset}/{self.reader.split}"

    def read(self) -> np.ndarray:
        """The image, uint8 [H, W, 3]; raises InputError if it cannot be read."""
        return self.reader.read(self.position)["image"]

    @property
    def has_coarse(self) -> bool:
        """Whether the dataset has a coarse mask of it."""
        return bool(self.reader.has["coarse"][self.position])

    def read_coarse(self) -> np.ndarray:
        """Its coarse mask, uint8 [H, W], class ids with 255 = void; raises InputError if it cannot be read."""
        return self.reader.read(self.position)["coarse"]

    def count_pixels(self) -> int:
        """Pixels by the index of the split."""
        return math.prod(self.reader.sizes[self.position].tolist())


Image = ImageFile | SplitImage


def split_images(reader: Reader) -> list[SplitImage]:
    """Lists the images of a split.

    Raises:
      InputError: an id would lead out of the folder that its picture is written to.
    """
    for name in reader.ids:
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"dataset {reader.dataset}, split {reader.split}: the id {name!r} is no name of a file below --out; "
                f"prepare the dataset again from files that have one"
            )
    return [SplitImage(reader, k) for k in range(len(reader))]


def find_images(
    paths: Sequence[pathlib.Path], aside: Sequence[pathlib.Path] = ()
) -> tuple[list[ImageFile], list[InputError]]:
    """Lists the image files among `paths`, and those in the folders among them and in their subfolders, in order.

    Each folder's tree is kept in the names: `photos/cam1/x.jpg` of `photos` is "cam1/x". `data.image_files.scan_images`
    says which files are left out.

    Args:
      paths: image files and folders.
      aside: folders whose files are left out: those of the masks that are read or written, which may lie in a folder
        of images.

    Returns:
      The images, and what is wrong with other files: they do not exist, or are no images that can be read.

    Raises:
      InputError: a folder among `paths` is one of `aside` or lies in it, or no image is found and nothing is wrong.
    """
    apart = [folder.resolve() for folder in aside]
    images: dict[ImageFile, None] = {}
    faults: list[InputError] = []
    left_out = 0
    for path in paths:
        try:
            is_folder, exists = path.is_dir(), path.exists()
        except OSError as error:
            faults.append(InputError(f"{path}: cannot be opened ({error.strerror}); expected an image, or a folder"))
            continue
        if not exists:
            faults.append(InputError(f"{path}: no such file or folder; expected an image, or a folder of images"))
        elif not is_folder:
            images[ImageFile(path, composed(path.stem))] = None
        elif _is_below(path / "x", apart):
            raise InputError(
                f"{path}: lies in {' or '.join(map(str, aside))}, the folder of the masks, so that masks could replace "
                f"images or be read as such; choose another folder for the masks, such as {path / 'masks'}"
            )
        else:
            listed, wrong = scan_images(path)
            faults += wrong
            outside = {stem: file for stem, file in listed.items() if not _is_below(file, apart)}
            left_out += len(listed) - len(outside)
            images |= dict.fromkeys(ImageFile(file, stem) for stem, file in outside.items())
    if left_out:
        folders = " and ".join(map(str, aside))
        log.info("left out %s in %s, because masks are no images to predict", plural(left_out, "file"), folders)
    if not images and not faults:
        where = ", ".join(map(str, paths)) or "paths"
        raise InputError(f"{where}: no image found; expected files ending in {', '.join(SUFFIXES)}")
    return list(images), faults


def _is_below(file: pathlib.Path, folders: Sequence[pathlib.Path]) -> bool:
    return any(file.parent.resolve().is_relative_to(folder) for folder in folders)
