"""Folders in which the label doctor finds nothing wrong."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from scarce_jax.data.builders.files import encode_image, encode_mask
from scarce_jax.data.coarse import example_rng, simulate_coarse
from tests.doctor.examples import (
    COLOURS,
    NAMES,
    labels,
    picture,
)


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> pathlib.Path:
    """images, masks, coarse: seven examples in train and val, nothing wrong."""
    root = tmp_path_factory.mktemp("clean")
    for seed, name in enumerate(NAMES):
        files = [root / kind / name for kind in ("images", "masks", "coarse")]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        mask = labels(seed)
        files[0].with_suffix(".jpg").write_bytes(encode_image(picture(seed)))
        files[1].with_suffix(".png").write_bytes(encode_mask(mask))
        coarse = simulate_coarse(mask, rng=example_rng("folder", name))
        files[2].with_suffix(".png").write_bytes(encode_mask(coarse))
    return root


@pytest.fixture
def folder(template, tmp_path) -> pathlib.Path:
    """A copy of `template` to plant faults into."""
    return shutil.copytree(template, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def source(folder, tmp_path) -> pathlib.Path:
    """The same examples as the `folder` builder takes them, with tags."""
    root = tmp_path / "source"
    for path in [p for kind in ("images", "masks", "coarse") for p in (folder / kind).rglob("*.*")]:
        kind, split, name = path.relative_to(folder).parts
        (root / split / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / split / kind / name)
    names = ["back", "red", "green", "blue"]
    (root / "classes.json").write_text(json.dumps({"classes": names, "palette": COLOURS.tolist(), "background": 0}))
    lines = [f"{pathlib.Path(name).name},red;green;blue" for name in NAMES]
    (root / "tags.csv").write_text("\n".join(["id,classes", *lines]))
    return root
