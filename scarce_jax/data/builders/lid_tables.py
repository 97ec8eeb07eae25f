"""The text files of a `lid` source: names of classes, and lists of training images with their classes."""

from __future__ import annotations

import pathlib

from scarce_jax.data.datasets import LID
from scarce_jax.data.files import read_json, read_lines
from scarce_jax.errors import InputError

COUNT = len(LID.classes) - 1
NAMES = f'{{"1": name, ..., "{COUNT}": name}} or a list of {COUNT} names; or lines "synset id name" in map_det.txt'
TRAIN_JSON = f"[[path of the image without suffix, [class ids from 1 to {COUNT}]], ...]"


def read_names(path: pathlib.Path) -> tuple[str, ...]:
    """Reads the names of the classes 1 to 200 from idx_to_name.json, or from map_det.txt of ILSVRC's devkit.

    Raises:
      InputError: the file is damaged, an id is missing or unknown, or two classes have the same name.
    """
    try:
        if path.suffix == ".json":
            content = read_json(path, NAMES)
            if not isinstance(content, list | dict):
                raise ValueError(f"found {str(content)[:80]}")
            pairs = list(enumerate(content, 1) if isinstance(content, list) else content.items())
            for k, name in pairs:
                if not isinstance(name, str):
                    raise ValueError(f"the name of class {k} is {name!r}")
        else:
            pairs = [line.split(maxsplit=2)[1:] for line in read_lines(path, NAMES) if line.strip()]
        names = {int(k): name.strip() for k, name in pairs if name.strip()}
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected {NAMES}") from error
    wanted = range(1, COUNT + 1)
    for fault, ids in (("has no name of class", set(wanted) - names.keys()), ("has the id", names.keys() - {*wanted})):
        if ids:
            raise InputError(f"{path}: {fault} {min(ids)} ({len(ids)} in all); expected {NAMES}")
    if len({"background", *names.values()}) <= COUNT:
        raise InputError(f"{path}: classes have equal names, or one is called background; expected {NAMES}")
    return tuple(names[k] for k in wanted)


def read_list(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Reads a train.json: path of an image without suffix -> ids of the classes that it shows; raises InputError."""
    entries = read_json(path, TRAIN_JSON)
    labels: dict[str, tuple[int, ...]] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        match entry:
            case [str(image), [*ids]] if all(type(k) is int and 1 <= k <= COUNT for k in ids):
                if image in labels:
                    raise InputError(f"{path}: {image!r} is listed twice; expected one entry per image")
                labels[image] = tuple(ids)
            case _:
                raise InputError(f"{path}: entry {number} is {str(entry)[:80]}, expected the entries of {TRAIN_JSON}")
    return labels


def read_image_sets(folder: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Reads train_1.txt to train_200.txt, with the result of `read_list`; raises InputError."""
    labels: dict[str, tuple[int, ...]] = {}
    for k in range(1, COUNT + 1):
        path = folder / f"train_{k}.txt"
        for number, line in enumerate(read_lines(path, "lines of a path and 1, 0 or -1"), 1):
            match line.split():
                case [image, "1" | "0"]:
                    labels[image] = (*labels.get(image, ()), k)
                case [image, "-1"]:
                    labels.setdefault(image, ())
                case [_, *_]:
                    raise InputError(f"{path}, line {number}: {line[:80]!r}, expected a path and 1, 0 or -1")
    return labels
