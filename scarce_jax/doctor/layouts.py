"""From folders to examples: which image, mask and coarse mask belong together, and what the names alone show."""

from __future__ import annotations

import bisect
import collections
import os
import pathlib
from collections.abc import Iterable, Sequence

from scarce_jax.data.files import SUFFIXES
from scarce_jax.doctor.examine import Example
from scarce_jax.doctor.report import Findings, printable
from scarce_jax.errors import InputError

SPLITS = ("train", "val", "test")
Files = dict[str, pathlib.Path]


def pair_folders(
    images: pathlib.Path,
    masks: pathlib.Path | None,
    coarse: pathlib.Path | None,
    split: str,
    findings: Findings,
) -> list[Example]:
    """The examples of an image folder, matched by name without suffix; subfolders are searched and part of the name.

    Args:
      split: of all; empty: the first subfolder of a name, if it is called as a split.

    Raises:
      InputError: a folder is missing, or holds no image file.
    """
    files_by_name = list_files(images, findings)
    labels = {"mask": masks, "coarse": coarse}
    matched = {
        key: _matched(files_by_name, images, folder, findings) for key, folder in labels.items() if folder is not None
    }
    examples = []
    for name, path in files_by_name.items():
        files = {key: masks.get(name) for key, masks in matched.items()}
        examples.append(Example(split=split or _own_split(name), name=name, image=path, **files))
    return examples


def _own_split(name: str) -> str:
    first, slash, _ = name.partition("/")
    return first if slash and first in SPLITS else ""


def list_files(folder: pathlib.Path, findings: Findings) -> Files:
    """Name (path from the folder, without suffix) -> image file, in order; hidden files are left out.

    Raises:
      InputError: it is no folder, or has no image file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file' if folder.exists() else 'missing'}, expected a folder of image files")
    others: collections.Counter[str] = collections.Counter()
    files: Files = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or path.is_dir():
            continue
        if path.suffix.lower() not in SUFFIXES:
            others[path.suffix or "no suffix"] += 1
            continue
        name = inside.with_suffix("").as_posix()
        if printable(name) != name:
            findings.add(
                "unreadable-name",
                path,
                "bytes that are no UTF-8 text, or control characters",
                expected="names of printable text, because they become ids",
                advice="rename the file and what belongs to it",
            )
        if name in files:
            findings.add(
                "duplicate-stem",
                path,
                f"beside {files[name].name}",
                expected="one file for each name without suffix, because it becomes the id",
                advice="remove one of the two, or rename it together with its mask",
            )
            continue
        files[name] = path
    if not files:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(3)) or "nothing"
        raise InputError(f"{folder}: no image file ({kinds} found); expected files ending in {', '.join(SUFFIXES)}")
    return files


def _matched(images: Files, image_folder: pathlib.Path, folder: pathlib.Path, findings: Findings) -> Files:
    """Image name -> mask; names that differ by constant endings are a finding, and matched all the same."""
    masks = list_files(folder, findings)
    stray = [name for name in masks if name not in images]
    endings = constant_endings(images, masks) if len(stray) > len(masks) / 2 else []
    if endings:
        (first, second), *others = endings
        many = "" if not others else f"; also {', '.join(repr(mask) for _, mask in others)} in the same folder"
        findings.add(
            "names-differ",
            folder,
            f"{_named(first, 'images')}, {_named(second, 'masks')}{many}",
            expected="a mask has the name of its image, up to the suffix",
            advice=(
                f"rename them, e.g. {next(iter(masks))} to {_renamed(next(iter(masks)), first, second)}"
                if not others
                else "copy the one kind of mask that holds class ids to a folder of its own, named as the images"
            ),
            count=len(stray),
        )
        if others:
            return {}
        by_core = {_core(name, second): path for name, path in masks.items() if _core(name, second) is not None}
        return {name: by_core[core] for name in images if (core := _core(name, first)) in by_core}
    for name in stray:
        findings.add(
            "mask-without-image",
            masks[name],
            f"no image {name}.* in {image_folder}",
            expected="an image of the same name for every mask",
            advice="restore the image, correct the name, or remove the mask",
        )
    return {name: path for name, path in masks.items() if name in images}


def constant_endings(images: Iterable[str], masks: Iterable[str]) -> list[tuple[str, str]]:
    """How the names of nearly all images and masks differ: (ending of the images, ending of the masks).

    An ending is what follows the common part; with "^" before it, it is a beginning. Several are given where one
    image has several masks, the commonest first; none where fewer than 4 in 5 names fit.
    """
    images, masks = sorted(images), sorted(masks)
    counted: collections.Counter[tuple[str, str]] = collections.Counter()
    for turned in (False, True):
        pairs = _near(_turned(images, turned), _turned(masks, turned))
        counted.update(tuple(_mark(rest, turned) for rest in pair) for pair in pairs)
    needed = 0.8 * min(len(images), len(masks))
    endings = []
    for pair, _ in counted.most_common(8):
        cores = [
            {_core(name, ending) for name in names} - {None}
            for names, ending in zip((images, masks), pair, strict=True)
        ]
        if any(pair) and len(cores[0] & cores[1]) >= max(1, needed):
            endings.append(pair)
    # One image ending for each kind of mask: the commonest.
    kinds = {mask: (image, mask) for image, mask in reversed(endings)}
    return list(reversed(kinds.values()))


def _near(images: Sequence[str], masks: Sequence[str]) -> Iterable[tuple[str, str]]:
    """For each mask, what is left of it and of the image whose name has most in common with it."""
    known, ordered = set(images), sorted(images)
    for mask in masks:
        longest = next((mask[:end] for end in range(len(mask), 0, -1) if mask[:end] in known), None)
        if longest is not None:
            yield "", mask[len(longest) :]
            continue
        at = bisect.bisect(ordered, mask)
        shared = [(len(os.path.commonprefix([mask, other])), other) for other in ordered[max(0, at - 1) : at + 1]]
        length, other = max(shared)
        if length:
            yield other[length:], mask[length:]


def _turned(names: Iterable[str], turned: bool) -> list[str]:
    return [name[::-1] if turned else name for name in names]


def _mark(rest: str, turned: bool) -> str:
    """An ending as it is, a beginning with "^" before it."""
    return f"^{rest[::-1]}" if turned and rest else rest


def _core(name: str, ending: str) -> str | None:
    """The name without an ending (or a beginning, marked by "^"); None where it has not got it."""
    if ending.startswith("^"):
        return name[len(ending) - 1 :] if name.startswith(ending[1:]) else None
    return name.removesuffix(ending) if name.endswith(ending) else None


def _named(ending: str, what: str) -> str:
    if not ending:
        return f"{what} have nothing added"
    return f"{what} begin with {ending[1:]!r}" if ending.startswith("^") else f"{what} end in {ending!r}"


def _renamed(mask: str, image_ending: str, mask_ending: str) -> str:
    core = _core(mask, mask_ending) or mask
    return f"{image_ending[1:]}{core}" if image_ending.startswith("^") else f"{core}{image_ending}"
