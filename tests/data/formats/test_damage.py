"""Exports with files damaged at random are read or refused in words, and never refused after a clean check."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest

from scarce_jax.data.builders.folder import read_item
from scarce_jax.data.builders.formats import read_source
from scarce_jax.data.palettes import Palettes
from scarce_jax.data.schema import IGNORE
from scarce_jax.doctor import check_source
from scarce_jax.errors import InputError
from tests.data.formats import exports

SEEDS = int(os.environ.get("SCARCE_JAX_EXPORTS", "4"))
"""Damaged folders of each export; set it to 100 to try 1,200."""

WRONG = (None, -1, 0, "", [], {}, "x", 1.5, 10**9, True, [[1, 2]], "../x", float("nan"), ["a"], {"a": 1})
"""Values that stand in an annotation in place of the right one."""


def places(value, path=()):
    """The path of keys and indices to every value in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:6]) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def change(value, draw):
    """Removes or replaces one value inside a JSON value."""
    path = draw.choice(list(places(value))[1:] or [()])
    if not path:
        return draw.choice(WRONG)
    inside = value
    for key in path[:-1]:
        inside = inside[key]
    if isinstance(inside, dict) and draw.random() < 0.3:
        del inside[path[-1]]
    else:
        inside[path[-1]] = draw.choice(WRONG)
    return value


def damage(root, draw) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path, data = draw.choice(files), None
    kind = draw.choice(["change", "change", "cut", "flip", "remove", "rename", "swap", "copy", "folder"])
    if kind == "change" and path.suffix == ".json":
        try:
            path.write_text(json.dumps(change(json.loads(path.read_text()), draw)))
        except ValueError:  # cut before
            path.unlink()
    elif kind in ("cut", "flip"):
        data = bytearray(path.read_bytes())
        position = draw.randrange(len(data) or 1)
        path.write_bytes(data[:position] if kind == "cut" else data[:position] + b"\x07" + data[position + 1 :])
    elif kind == "remove":
        path.unlink()
    elif kind == "rename":
        path.rename(path.with_name(f"z{path.name}"))
    elif kind == "swap":
        path.write_bytes(draw.choice(files).read_bytes())
    elif kind == "copy":
        shutil.copy(path, path.with_name(f"copy{path.name}"))
    elif path.parent != root:
        path.parent.rename(path.parent.with_name(draw.choice(["labels", "masks", "images", "val", "x y"]) + "2"))


def read_all(root) -> None:
    """Reads a source as `prepare` does."""
    layout = read_source(root)
    palettes = {"fine": Palettes(), "coarse": Palettes()}
    used = set()
    for split, items in layout.splits.items():
        for item in items:
            fine = read_item(item, f"{split}/{item.name}", palettes).fine
            used |= set() if fine is None else {*fine.ravel().tolist()}
    assert used <= {*range(len(layout.classes.classes)), IGNORE}
    layout.classes.confirm(used - {IGNORE})


@pytest.mark.parametrize("name", exports.EXPORTS)
def test_damage_is_refused_in_words_by_both_commands(tmp_path, name):
    for seed in range(SEEDS):
        draw, root = random.Random(f"{name} {seed}"), tmp_path / str(seed)
        root.mkdir()
        exports.EXPORTS[name][1](root)
        for _ in range(draw.randint(1, 2)):
            damage(root, draw)
        try:
            read_all(root)
            refusal = ""
        except InputError as error:
            refusal = str(error)
        try:
            clean = check_source(root).clean
        except InputError:
            clean = False
        assert not (clean and refusal), f"seed {seed}: {refusal}"
