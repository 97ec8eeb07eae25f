"""Source folders as people have them: do `check`, `prepare`, the training reader and the reader of `predict` agree?

The folders are those of `tests.data.made_folders`: first one for each kind of image file, of mask file and of oddity,
then folders drawn from seeds. A folder agrees if every command accepts it with the pixels that were written, or every
command refuses it.
"""

from __future__ import annotations

import collections
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attacks.forks import in_child
from attacks.workplace import Workplace


def files(place: Workplace, count: int, only: Sequence[str] = ()) -> None:
    """Compares a folder for each kind, and `count` drawn ones."""
    from tests.data import made_folders as made

    seeds = () if only else range(place.seed, place.seed + count)
    kinds = [(name, make) for name, make in _kinds() if not only or name in only]
    drawn = [(f"seed {seed}", lambda root, seed=seed: made.make(root, seed)) for seed in seeds]
    for group, cases in (("kinds", kinds), ("folders", drawn)):
        answers: collections.Counter = collections.Counter()
        differing = []
        for name, make in cases:
            if place.over:
                break
            answer = in_child(_compare, made.compare, make, place.folder / "made")
            known = answer in ("accepted", "refused")
            answers[answer if known else "differing"] += 1
            if not known:
                differing.append(f"{name}: {answer}"[:400])
        if not answers:
            continue
        counts = {answer: answers[answer] for answer in ("accepted", "refused", "differing")}
        place.append({"attack": "files", "group": group, "tried": sum(answers.values()), **counts, "found": differing})


def _compare(compare: Callable, make: Callable, folder: pathlib.Path) -> str:
    """The answer that all commands give, or what is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return compare(make(folder / "source"), folder / "data")
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _kinds() -> Iterator[tuple[str, Callable[[pathlib.Path], Any]]]:
    """A name, and a function that makes a folder with two plain examples and one oddity."""
    from tests.data import made_folders as made

    for image in made.IMAGES:
        yield f"image {image}", lambda root, image=image: _folder(root, image=image)
    for mask in made.MASKS:
        yield f"mask {mask}", lambda root, mask=mask: _folder(root, mask=mask)
    for oddity in (*made.HARMLESS, *made.FAULTS):
        name = oddity.__name__.strip("_").replace("_", " ")
        yield name, lambda root, oddity=oddity: _folder(root, oddity=oddity)


def _folder(root: pathlib.Path, image: str = "png", mask: str = "png", oddity: Callable | None = None) -> Any:
    """Writes a source folder, and what must be read from it."""
    import numpy as np

    from tests.data import made_folders

    random, found = np.random.default_rng(0), made_folders.Made(root)
    root.mkdir(parents=True)
    (root / "classes.json").write_text(
        json.dumps({"classes": ["background", "cat", "dog"], "background": "background", "ignore": made_folders.VOID})
    )
    for name, *kinds in (("train/a", "png", "png"), ("val/b", "png", "png"), ("train/odd", image, mask)):
        split, stem = name.split("/")
        pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
        ids = np.arange(256, dtype=np.uint8).reshape(16, 16) % 3
        writers = (made_folders.IMAGES, made_folders.MASKS)
        read = []
        for folder, writer, kind, content in zip(("images", "masks"), writers, kinds, (pixels, ids), strict=True):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
            read.append(writer[kind](root / split / folder / stem, content, random)[1])
        found.images[name], found.masks[name] = read
        found.refused += [f"{kind} of {name}" for kind, expected in zip(kinds, read, strict=True) if expected is None]
    if oddity is not None:
        oddity(found, random)
    return found
