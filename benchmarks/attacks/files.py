"""Source folders as people have them: do `check`, `prepare`, the training reader and the reader of `predict` agree?

The folders are those of `tests.data.made_folders`: first one for each kind of image file, of mask file and of oddity,
then folders drawn from seeds. A folder agrees if every command accepts it with the pixels that were written, or every
command refuses it.
"""

from __future__ import annotations

import collections
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attacks.forks import in_child
from attacks.workplace import Workplace


def files(place: Workplace, count: int, only: Sequence[str] = ()) -> None:
    """Compares a folder for each kind, and `count` drawn ones."""
    from tests.data import made_folders as made

    kinds = [("kind", name, make) for name, make in _kinds() if not only or name in only]
    drawn = [
        ("drawn", f"seed {seed}", lambda root, seed=seed: made.make(root, seed))
        for seed in range(place.seed, place.seed + count)
    ]
    for group, cases in (("kinds", kinds), ("folders", [] if only else drawn)):
        answers: collections.Counter = collections.Counter()
        differing = []
        for _, name, make in cases:
            if place.over:
                break
            answer = in_child(_compare, made.compare, make, place.folder / "made")
            known = answer in ("accepted", "refused")
            answers[answer if known else "differing"] += 1
            if not known:
                differing.append(f"{name}: {answer}"[:400])
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
    """A name, and a function that makes a folder of two plain examples, and a third with one oddity."""
    import numpy as np

    from tests.data import made_folders as made

    def folder(root: pathlib.Path, image: str, mask: str, oddity: Callable | None) -> Any:
        random = np.random.default_rng(0)
        found = made.make_plain(root)
        if (image, mask) != ("png", "png"):
            made.add(found, "train/odd", image, mask, random)
        if oddity is not None:
            oddity(found, random)
        return found

    for image in made.IMAGES:
        yield f"image {image}", lambda root, image=image: folder(root, image, "png", None)
    for mask in made.MASKS:
        yield f"mask {mask}", lambda root, mask=mask: folder(root, "png", mask, None)
    for oddity in (*made.HARMLESS, *made.FAULTS):
        name = oddity.__name__.strip("_").replace("_", " ")
        yield name, lambda root, oddity=oddity: folder(root, "png", "png", oddity)
