"""Pairs the images, masks and coarse masks of folders by their names."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Sequence

from scarce_jax.data.files import SUFFIXES
from scarce_jax.doctor.facts import Example
from scarce_jax.doctor.findings import Finding, fault, printable
from scarce_jax.doctor.names import constant_endings, normal, pairs_in, shared, written_by
from scarce_jax.errors import InputError, nearest

SPLITS = ("train", "val", "test")
JUNK = ("thumbs.db", "ehthumbs.db", "desktop.ini")
"""Files that Windows leaves in folders of images, in lower case."""
PICTURES = (".heic", ".heif", ".avif", ".gif", ".jp2", ".dng", ".cr2", ".nef", ".arw", ".psd", ".svg", ".pdf", ".dcm")
"""Endings of pictures that are not read."""
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
    if masks is not None and folders[0] == folders[1]:
        files, found = _divide(images, _list_paths(images, faults, skip=folders[2:]), faults)
    else:
        files = _by_name(images, _list_paths(images, faults, skip=folders[1:]), faults)
        found = {} if masks is None else _match(files, images, masks, _list_paths(masks, faults, skip=folders), faults)
    rough = {} if coarse is None else _match(files, images, coarse, _list_paths(coarse, faults, skip=folders), faults)
    examples = []
    for name, path in files.items():
        first, slash, _ = name.partition("/")
        own = first if slash and first in SPLITS else ""
        example = Example(split=split or own, name=name, image=path, mask=found.get(name), coarse=rough.get(name))
        examples.append(example)
    return examples


def _list_paths(folder: pathlib.Path, faults: list[Finding], skip: Sequence[pathlib.Path] = ()) -> list[pathlib.Path]:
    """The image files of a folder, sorted; hidden files are left out, and the files of folders in it that are in
    `skip`."""
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file' if folder.exists() else 'missing'}, expected a folder of image files")
    here = folder.resolve()
    inner = [other for other in skip if here in other.parents]
    others: collections.Counter[str] = collections.Counter()
    paths = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts) or path.name.lower() in JUNK
        if hidden or path.is_dir() or any((here / inside).is_relative_to(other) for other in inner):
            continue
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            paths.append(path)
            continue
        others[path.suffix or "no suffix"] += 1
        advice = "move them out of the folder"
        if suffix in PICTURES:
            advice = f"convert them to JPEG or PNG, e.g. with ImageMagick: magick {path.name} {path.stem}.jpg"
        observed = f"a {suffix} file" if suffix else "a file without suffix"
        faults.append(fault("file-not-read", path, observed, advice=advice))
    if not paths:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(3)) or "nothing"
        raise InputError(f"{folder}: no image file ({kinds} found); expected files ending in {', '.join(SUFFIXES)}")
    return paths


def _by_name(folder: pathlib.Path, paths: Sequence[pathlib.Path], faults: list[Finding]) -> Files:
    """Name (path from the folder, without suffix) -> file."""
    files: Files = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if printable(name) != name:
            faults.append(fault("unreadable-name", path, "bytes that are no UTF-8 text, or control characters"))
        if normal(name) in files:
            faults.append(fault("duplicate-stem", path, f"beside {files[normal(name)].name}"))
        files.setdefault(normal(name), path)
    return files


def _divide(folder: pathlib.Path, paths: Sequence[pathlib.Path], faults: list[Finding]) -> tuple[Files, Files]:
    """The images and the masks of one folder, by what is constant in the names of masks, or by their suffixes."""
    by_name: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
    for path in paths:
        by_name[normal(path.relative_to(folder).with_suffix("").as_posix())].append(path)
    masks = {image: by_name[mask][0] for image, mask in pairs_in(by_name).items()}
    told = "masks are told from images by their names"
    if not masks:
        told = "masks have the names of JPEG images"
        for name, alike in by_name.items():
            exact = [path.suffix.lower() in MASK_SUFFIXES for path in alike]
            if sorted(exact) == [False, True]:
                masks[name] = alike[exact.index(True)]
    if not masks:
        raise InputError(
            f"{folder}: --images and --masks name one folder, and no ending such as _mask tells masks from images; "
            "expected a folder of images and one of masks"
        )
    taken = set(masks.values())
    image, mask = next(iter(masks.items()))
    advice = f"move the masks to a folder of their own, named as the images, such as {mask.name} to "
    advice += f"masks/{pathlib.PurePath(image).name}{mask.suffix}{_tool(folder, [path.stem for path in taken])}"
    observed = f"images and masks in one folder; {told}"
    faults.append(fault("one-folder", folder, observed, advice=advice, count=len(taken)))
    return _by_name(folder, [path for path in paths if path not in taken], faults), masks


def _match(
    images: Files, beside: pathlib.Path, folder: pathlib.Path, paths: Sequence[pathlib.Path], faults: list[Finding]
) -> Files:
    """Image name -> mask. Names that differ by constant parts are a fault, and matched nevertheless."""
    masks = _by_name(folder, paths, faults)
    matched = {name: path for name, path in masks.items() if name in images}
    stray = {name: path for name, path in masks.items() if name not in images}
    endings = constant_endings(images, stray) if stray else []
    start, end = shared(images)
    cores = {name: name[len(start) : len(name) - len(end)] for name in images}
    image_of = {f"{before}{core}{after}": name for before, after in endings for name, core in cores.items()}
    image_of = {name: image_of[name] for name in stray if name in image_of}
    tool = _tool(folder, list(stray))
    if image_of and not matched:
        patterns = ", ".join(repr(f"{before}*{after}") for before, after in endings)
        advice = "copy the one kind of mask that holds class ids to a folder of its own, named as the images"
        if len(endings) == 1:
            matched = {image: stray[mask] for mask, image in image_of.items()}
            image, path = next(iter(matched.items()))
            advice = f"rename them, e.g. {path.name} to {pathlib.PurePath(image).name}{path.suffix}"
        observed = f"images are named {f'{start}*{end}'!r}, masks {patterns}"
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
