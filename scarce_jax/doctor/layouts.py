"""Pairs the images, masks and coarse masks of folders by their names."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Sequence

from scarce_jax.data.builders.formats.pairing import constant_endings, cores, shared
from scarce_jax.data.image_files import SUFFIXES, FileError, scan_images
from scarce_jax.doctor.facts import Example
from scarce_jax.doctor.findings import Finding, fault, fault_of
from scarce_jax.doctor.names import annotations_in, pairs_in, written_by
from scarce_jax.errors import InputError, nearest

SPLITS = ("train", "val", "test")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
Files = dict[str, pathlib.Path]


def pair_folders(
    images: pathlib.Path, masks: pathlib.Path | None, coarse: pathlib.Path | None, split: str, faults: list[Finding]
) -> list[Example]:
    """The examples of an image folder, matched by name without suffix; subfolders are searched and part of the name.

    Args:
      masks, coarse: folders, which may lie in the folder of images; `masks` may be that folder.
      split: the split of all examples; if empty, a first subfolder called train, val or test is a split.
      faults: the list to which faults of names are added.

    Raises:
      InputError: a folder is missing, or holds no image file; or one folder has images and masks that names do not tell
        apart.
    """
    folders = [folder.resolve() for folder in (images, masks, coarse) if folder is not None]
    if coarse is not None and folders[-1] in folders[:-1]:
        raise InputError(f"{coarse}: --coarse names the folder of other files; expected a folder of coarse masks")
    # A folder of masks that the user named has some; in a source it may be empty.
    listed = lambda folder: _list_files(folder, folders, faults, required=not split)
    if masks is not None and folders[0] == folders[1]:
        files, found = _divide(images, folders[2:], faults)
    else:
        files = _list_files(images, folders, faults)
        found = {} if masks is None else _match(files, images, masks, listed(masks), faults)
    rough = {} if coarse is None else _match(files, images, coarse, listed(coarse), faults)
    examples = []
    for name, path in files.items():
        first, slash, _ = name.partition("/")
        own = first if slash and first in SPLITS else ""
        example = Example(split=split or own, name=name, image=path, mask=found.get(name), coarse=rough.get(name))
        examples.append(example)
    return examples


def _scan(folder: pathlib.Path, skip: Sequence[pathlib.Path], required: bool = True) -> tuple[Files, list[FileError]]:
    """Name (path from the folder, without suffix) -> image file, sorted, and the faults of names.

    Files are listed as every command lists them, without those of folders in `skip`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file' if folder.exists() else 'missing'}, expected a folder of image files")
    files, errors = scan_images(folder)
    if not files and required:
        others = collections.Counter(pathlib.Path(error.path).suffix or "no suffix" for error in errors)
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(3)) or "nothing"
        expected = f"expected files ending in {', '.join(SUFFIXES)}{annotations_in(folder)}"
        raise InputError(f"{folder}: no image file ({kinds} found); {expected}")
    here = folder.resolve()
    inner = [other.relative_to(here) for other in skip if here in other.parents]
    apart = lambda path: not any(pathlib.Path(path).relative_to(folder).is_relative_to(other) for other in inner)
    return {name: path for name, path in files.items() if apart(path)}, [e for e in errors if apart(e.path)]


def _list_files(
    folder: pathlib.Path, skip: Sequence[pathlib.Path], faults: list[Finding], required: bool = True
) -> Files:
    files, errors = _scan(folder, skip, required)
    faults += map(fault_of, errors)
    return files


def _divide(folder: pathlib.Path, skip: Sequence[pathlib.Path], faults: list[Finding]) -> tuple[Files, Files]:
    """The images and the masks of one folder, by what is constant in the names of masks, or by their suffixes."""
    files, errors = _scan(folder, skip)
    masks = {image: files[mask] for image, mask in pairs_in(files).items()}
    told = "masks are told from images by their names"
    if not masks:
        told = "masks have the names of JPEG images"
        by_path = {path.with_suffix(""): name for name, path in files.items()}
        for error in [error for error in errors if error.kind == "duplicate-stem"]:
            second = pathlib.Path(error.path)
            name = by_path.get(second.with_suffix(""))
            pair = sorted([files[name], second], key=lambda path: path.suffix.lower() in MASK_SUFFIXES) if name else []
            if [path.suffix.lower() in MASK_SUFFIXES for path in pair] == [False, True] and name not in masks:
                files[name], masks[name] = pair
                errors.remove(error)
    if not masks:
        raise InputError(
            f"{folder}: --images and --masks name one folder, and no ending such as _mask tells masks from images; "
            f"expected a folder of images and one of masks{annotations_in(folder)}"
        )
    taken = set(masks.values())
    image, mask = next(iter(masks.items()))
    advice = f"move the masks to a folder of their own, named as the images, such as {mask.name} to "
    advice += f"masks/{pathlib.PurePath(image).name}{mask.suffix}{_tool(folder, [path.stem for path in taken])}"
    observed = f"images and masks in one folder; {told}"
    faults += map(fault_of, errors)
    faults.append(fault("one-folder", folder, observed, advice=advice, count=len(taken)))
    return {name: path for name, path in files.items() if path not in taken}, masks


def _match(images: Files, beside: pathlib.Path, folder: pathlib.Path, masks: Files, faults: list[Finding]) -> Files:
    """Image name -> mask. Names that differ by constant parts are a fault, and matched nevertheless."""
    matched = {name: path for name, path in masks.items() if name in images}
    stray = {name: path for name, path in masks.items() if name not in images}
    endings = constant_endings(images, stray) if stray else []
    image_of = {f"{before}{core}{after}": name for before, after in endings for name, core in cores(images).items()}
    image_of = {name: image_of[name] for name in stray if name in image_of}
    tool = _tool(folder, list(stray))
    if image_of and not matched:
        patterns = ", ".join(repr(f"{before}*{after}") for before, after in endings)
        advice = "copy the one kind of mask that holds class ids to a folder of its own, named as the images"
        if len(endings) == 1:
            matched = {image: stray[mask] for mask, image in image_of.items()}
            image, path = next(iter(matched.items()))
            advice = f"rename them, e.g. {path.name} to {pathlib.PurePath(image).name}{path.suffix}"
        observed = f"images are named {'*'.join(shared(images))!r}, masks {patterns}"
        faults.append(fault("names-differ", folder, observed, advice=advice + tool, count=len(image_of)))
    else:
        for name, image in image_of.items():
            observed = f"{image} has a mask {matched[image].name}" if image in matched else f"its image may be {image}"
            advice = "move them out of the folder if they are masks of another kind, or name them as their images"
            faults.append(fault("mask-without-image", stray[name], observed, advice=advice + tool))
    for name, path in stray.items():
        if name not in image_of:
            observed = f"no image {name}.* in {beside}{nearest(name, images)}"
            advice = (
                tool.removeprefix("; ") or "restore the image, correct the name, or move the mask out of the folder"
            )
            faults.append(fault("mask-without-image", path, observed, advice=advice))
    return matched


def _tool(folder: pathlib.Path, names: Sequence[str]) -> str:
    """The tool that names masks so, as the end of an advice; empty if none is known."""
    tool = written_by(folder, names)
    return f"; {tool}" if tool else ""
