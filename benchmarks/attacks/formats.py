"""The same images as each annotation tool exports them: is the format recognised, and are the masks the known ones?

The exports are those of `tests.data.formats.exports`: three images with a mask, and one without.
"""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from attacks.forks import in_child
from attacks.workplace import Workplace


def formats(place: Workplace, count: int, only: Sequence[str] = ()) -> None:
    """Checks and prepares the first `count` exports."""
    from tests.data.formats.exports import EXPORTS

    for name, (expected, write) in list(EXPORTS.items())[:count]:
        if not only or name in only:
            found = in_child(_read, expected, write, place.folder / "export")
            place.append({"attack": "formats", "export": name, "format": expected, **found})


def _read(expected: str, write: Callable[[pathlib.Path], None], folder: pathlib.Path) -> dict[str, Any]:
    """Which format was seen, and how many masks are equal to those that were drawn."""
    import numpy as np

    from scarce_jax.data.builders import prepare
    from scarce_jax.data.builders.formats import Options, choose
    from scarce_jax.data.source import Reader
    from scarce_jax.doctor import check_source
    from tests.data.formats import exports

    shutil.rmtree(folder, ignore_errors=True)
    source, data = folder / "source", folder / "data"
    source.mkdir(parents=True)
    write(source)
    outcome: dict[str, Any] = {
        "recognised": False,
        "clean": False,
        "masks": len(exports.NAMES),
        "equal": 0,
        "error": "",
    }
    try:
        outcome["recognised"] = choose(source, Options()) == expected
        outcome["clean"] = check_source(source).clean
        prepare("folder/export", data, source)
        reader = Reader("folder/export", "train", str(data))
        examples = [reader.read(k) for k in range(len(reader))]
        for letter in exports.NAMES:
            # Tools rename images, and some store JPEG: the nearest one is meant.
            image = exports.image(letter).astype(int)
            nearest = min(examples, key=lambda example: np.abs(example["image"] - image).mean())
            outcome["equal"] += np.array_equal(nearest["fine"], exports.truth(letter))
    except Exception as error:
        outcome["error"] = f"{type(error).__name__}: {error}"[:400]
    return outcome
