"""Source folders of the dataset `folder` as people have them, from a seed; and whether all commands read them alike.

`make` draws images and masks of the kinds of `image_kinds`, odd names, links, litter and faults. `compare` then checks
and prepares the folder, and raises AssertionError where two commands disagree.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import tempfile
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

from scarce_jax.data.builders import prepare
from scarce_jax.data.image_files import list_images
from scarce_jax.data.images import decode_image, read_encoded, read_image, read_mask
from scarce_jax.data.source import Reader
from scarce_jax.doctor import check_source
from scarce_jax.errors import InputError
from tests.data.image_kinds import IMAGES, MASKS, Expected, palette_image

VOID = 9
NAMES = ("a", "IMG_0001", "two words", "Bäume", "写真", "x.y", "IMG.jpg", "sub/deep/c", "Größe 1,5", "-dash", "#1")

READING = {
    "unreadable-file", "empty-file", "truncated-file", "not-an-image", "damaged-file", "unfit-file", "unreadable-name",
    "duplicate-stem", "mask-without-image", "lossy-mask", "not-ids", "colour-mask", "palettes-differ", "size-mismatch",
    "id-out-of-range",
}  # fmt: skip
"""Kinds of problems for which `prepare` must refuse the folder too."""


@dataclasses.dataclass
class Made:
    """A folder, and what must be read from it.

    Attributes:
      root: the source folder.
      images: "SPLIT/STEM" -> what its image must give (see `image_kinds`).
      masks: likewise; images without a mask have none.
      refused: why the folder must be refused; empty if it need not be.
    """

    root: pathlib.Path
    images: dict[str, Expected] = dataclasses.field(default_factory=dict)
    masks: dict[str, Expected] = dataclasses.field(default_factory=dict)
    refused: list[str] = dataclasses.field(default_factory=list)


def _names_in_two_forms(made: Made, random: np.random.Generator) -> None:
    for path in [p for p in made.root.rglob("*") if p.parent.name == "masks" and p.is_file()]:
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))


def _litter(made: Made, random: np.random.Generator) -> None:
    folder = made.root / "train/images"
    for name in ("Thumbs.db", ".DS_Store", "._a.png", "desktop.ini", "readme.txt", "labels.json", "README"):
        (folder / name).write_bytes(b"x")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir/a.png").write_bytes(b"x")


def _linked_folder(made: Made, random: np.random.Generator) -> None:
    split = made.root / "train"
    elsewhere = made.root / f"elsewhere{int(random.integers(9))}"
    for kind in ("images", "masks"):
        (split / kind).rename(elsewhere.with_name(f"{elsewhere.name}_{kind}"))
        (split / kind).mkdir()
        (split / kind / "linked").symlink_to(elsewhere.with_name(f"{elsewhere.name}_{kind}"))
    for expected in (made.images, made.masks):
        for name in [name for name in expected if name.startswith("train/")]:
            expected[f"train/linked/{name.removeprefix('train/')}"] = expected.pop(name)


def _linked_files(made: Made, random: np.random.Generator) -> None:
    (made.root / "store").mkdir()
    for number, path in enumerate(p for p in sorted((made.root / "train").rglob("*")) if p.is_file()):
        stored = made.root / "store" / f"{number}{path.suffix}"
        path.rename(stored)
        path.symlink_to(os.path.relpath(stored, path.parent))


def _circle(made: Made, random: np.random.Generator) -> None:
    (made.root / "train/images/circle").symlink_to(made.root / "train")


def _heic(made: Made, random: np.random.Generator) -> None:
    (made.root / "train/images/IMG_7.HEIC").write_bytes(b"x")
    made.refused.append("a HEIC file")


def _array(made: Made, random: np.random.Generator) -> None:
    np.save(made.root / "val/images/array.npy", np.zeros((4, 4)))
    made.refused.append("an array file")


def _dangling(made: Made, random: np.random.Generator) -> None:
    (made.root / "train/images/gone.png").symlink_to("nothing.png")
    made.refused.append("a link to nothing")


def _equal_stems(made: Made, random: np.random.Generator) -> None:
    path = next(p for p in sorted((made.root / "val/images").rglob("*")) if p.is_file())
    path.with_suffix(".webp" if path.suffix != ".webp" else ".png").write_bytes(path.read_bytes())
    made.refused.append("equal stems")


def _stray_mask(made: Made, random: np.random.Generator) -> None:
    IMAGES["png-grey"](made.root / "train/masks/stray", np.zeros((8, 8, 3), np.uint8), random)
    made.refused.append("a mask without an image")


def _control_character(made: Made, random: np.random.Generator) -> None:
    IMAGES["png"](made.root / "train/images/new\nline", np.ones((8, 8, 3), np.uint8), random)
    made.refused.append("a name with a control character")


def _own_palettes(made: Made, random: np.random.Generator) -> None:
    for number in range(2):
        IMAGES["png"](made.root / f"train/images/p{number}", random.integers(0, 256, (8, 8, 3), np.uint8), random)
        ids = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
        picture = palette_image(
            ids, np.array([[(0, 0, 0), (250, 10, 10), (10, 250, 10)][(k + number) % 3] for k in range(3)])
        )
        picture.save(made.root / f"train/masks/p{number}.png")
    made.refused.append("palettes that differ")


def _another_size(made: Made, random: np.random.Generator) -> None:
    IMAGES["png"](made.root / "train/images/size", random.integers(0, 256, (8, 9, 3), np.uint8), random)
    MASKS["png"](made.root / "train/masks/size", np.zeros((9, 8), np.uint8), random)
    made.refused.append("a mask of another size")


def _unknown_id(made: Made, random: np.random.Generator) -> None:
    IMAGES["png"](made.root / "train/images/id", random.integers(0, 256, (8, 8, 3), np.uint8), random)
    MASKS["png"](made.root / "train/masks/id", np.full((8, 8), 77, np.uint8), random)
    made.refused.append("an unknown id")


HARMLESS: tuple[Callable[[Made, np.random.Generator], None], ...] = (
    _names_in_two_forms, _litter, _linked_folder, _linked_files, _circle,
)  # fmt: skip
FAULTS: tuple[Callable[[Made, np.random.Generator], None], ...] = (
    _heic, _array, _dangling, _equal_stems, _stray_mask, _control_character, _own_palettes, _another_size, _unknown_id,
)  # fmt: skip


def make(root: pathlib.Path, seed: int) -> Made:
    """Writes a source folder, which is drawn from the seed; in about half of the folders something must be refused."""
    random = np.random.default_rng(seed)
    made = Made(root)
    root.mkdir(parents=True)
    content = {"classes": ["background", "cat", "dog"], "background": "background", "ignore": VOID}
    (root / "classes.json").write_text(json.dumps(content))
    good = random.random() < 0.6
    for split in ("train", "val"):
        for name in random.choice(NAMES, int(random.integers(2, 5)), replace=False).tolist():
            stems = [root / split / kind / name for kind in ("images", "masks")]
            for stem in stems:
                stem.parent.mkdir(parents=True, exist_ok=True)
            _draw(made, f"{split}/{name}", *stems, random, good)
    if random.random() < 0.4:
        HARMLESS[random.integers(len(HARMLESS))](made, random)
    if not good and random.random() < 0.5:
        FAULTS[random.integers(len(FAULTS))](made, random)
    return made


def _draw(
    made: Made, name: str, image: pathlib.Path, mask: pathlib.Path, random: np.random.Generator, good: bool
) -> None:
    """Writes an image and in most cases its mask, both square, so that turning one keeps its size."""
    side = int(random.integers(8, 17))
    pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
    ids = random.integers(0, 3, (side, side), dtype=np.uint8)
    ids[0, :3] = 0, 1, 2
    made.images[name] = _write(IMAGES, image, pixels, random, good)
    if random.random() < 0.8:
        made.masks[name] = _write(MASKS, mask, ids, random, good)
    for kind, expected in (("image", made.images[name]), ("mask", made.masks.get(name, ...))):
        if expected is None:
            made.refused.append(f"the {kind} of {name}")


def _write(kinds, stem: pathlib.Path, content: np.ndarray, random: np.random.Generator, good: bool) -> Expected:
    names = list(kinds)
    while True:
        path, expected = kinds[names[random.integers(len(names))]](stem, content, random)
        # Of 1 in 4 files any kind, of the others what can be read.
        if expected is not None or (not good and random.random() < 0.25):
            return expected
        path.unlink()


def compare(made: Made, data_dir: pathlib.Path) -> str:
    """Reads a folder by every command: "accepted" or "refused", in which all agree.

    Raises:
      AssertionError: two commands disagree, or one reads other pixels than were written.
    """
    for path in (p for p in made.root.rglob("*") if p.is_file() and p.parent.name != made.root.name):
        _compare_file(path)
    try:
        report = check_source(made.root)
        problems = {finding.kind for finding in report.problems}
    except InputError as error:
        report, problems = error, READING
    try:
        prepare("folder/made", data_dir, made.root)
        outcome, why = "accepted", ""
    except InputError as error:
        outcome, why = "refused", str(error)
    where = f"{made.root}: {made.refused} | check: {report} | prepare: {why or outcome}"
    assert (outcome == "refused") == bool(made.refused), where
    assert not (outcome == "refused" and not problems), where
    assert not (outcome == "accepted" and problems & READING), where
    if outcome == "accepted":
        _compare_prepared(made, data_dir)
    return outcome


def _compare_file(path: pathlib.Path) -> None:
    """`prepare` stores the pixels that `predict` reads, or both say the same."""
    try:
        pixels = read_image(path)
    except InputError as error:
        try:
            read_encoded(path)
        except InputError as other:
            assert str(other) == str(error)
            return
        raise AssertionError(f"{path}: read_encoded reads what read_image refuses ({error})") from error
    data, size = read_encoded(path)
    assert size == pixels.shape[:2] and np.array_equal(decode_image(data), pixels), path


def _compare_prepared(made: Made, data_dir: pathlib.Path) -> None:
    for split in ("train", "val"):
        reader = Reader("folder/made", split, str(data_dir))
        files = {f"{split}/{stem}": path for stem, path in list_images(made.root / split / "images").items()}
        drawn = {f"{split}/{stem}": path for stem, path in list_images(made.root / split / "masks").items()}
        assert list(reader.ids) == list(files), (made.root, reader.ids, list(files))
        written = {name for name in made.images if name.startswith(f"{split}/")}
        assert {*files} >= written, (made.root, written)
        for k, name in enumerate(reader.ids):
            example = reader.read(k)
            _same(example["image"], read_image(files[name]), made.images.get(name, ...), files[name])
            if name not in drawn:
                assert example["fine"] is None and name not in made.masks, (made.root, name)
                continue
            ids = read_mask(drawn[name])
            _same(example["fine"], np.where(ids == VOID, 255, ids), made.masks.get(name, ...), drawn[name])


def _same(stored: np.ndarray, read: np.ndarray, expected: Expected, path: pathlib.Path) -> None:
    assert np.array_equal(stored, read), path
    if isinstance(expected, np.ndarray):
        assert np.array_equal(read, expected), path


def compare_all(seeds: Iterable[int], folder: pathlib.Path | None = None) -> dict[str, int]:
    """Makes and compares the folders of many seeds, one after the other; returns how many were accepted and refused."""
    counts: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            here = pathlib.Path(temporary)
            counts[compare(make(here / "source", seed), here / "data")] += 1
    return dict(counts)
