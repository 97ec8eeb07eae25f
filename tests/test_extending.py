"""The README's own dataset and method: short, and they run as written."""

import ast
import pathlib
import re
import sys

import numpy as np
import pytest
from PIL import Image

from scarce_jax import cli, runs

ROOT = pathlib.Path(__file__).parents[1]

CONFIG = """
import penalty
from scarce_jax.methods.common import SegmenterStage
from tests import tiny

config = penalty.Config(dataset="leaves:Leaves", segmenter=SegmenterStage(**tiny.stage()), runtime=tiny.RUNTIME)
"""


@pytest.fixture(scope="module")
def blocks():
    """The README's Python files, by name."""
    files = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [name for name, _ in files] == ["leaves.py", "penalty.py"]
    return dict(files)


@pytest.fixture
def folder(blocks, tmp_path, monkeypatch):
    """A user's folder with both files, a config and some photographs."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for k in range(count):
            mask = np.kron(draw.choice([0, 1, 9], (2, 3)), np.ones((20, 16))).astype(np.uint8)
            photo = draw.integers(0, 256, (40, 48, 3)).astype(np.uint8)
            Image.fromarray(photo).save(tmp_path / "photos" / split / f"{k}.jpg")
            Image.fromarray(mask).save(tmp_path / "photos" / split / f"{k}.png")
    for name, text in {**blocks, "mine.py": CONFIG}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in ("leaves", "penalty"):
        sys.modules.pop(name, None)


def test_both_are_short(blocks):
    for text in blocks.values():
        lines = [line for line in text.splitlines() if line.strip()]
        assert 0 < len(lines) < 40


def test_both_run_as_written(folder):
    data = ["--data-dir", "data"]
    assert cli.main(["prepare", "leaves:Leaves", "--source", "photos", *data]) == 0
    assert cli.main(["check", "leaves:Leaves", *data]) == 0
    assert cli.main(["train", "mine.py", "--penalty", "0.2", "--workdir", "run", *data]) == 0
    figures = runs.evaluate("run", data_dir="data")
    assert figures["images"] == 3 and set(figures["per_class"]) == {"soil", "leaf"}
    # A run folder names the method's module, so it opens by itself.
    assert cli.main(["predict", "run", "photos/val/0.jpg", "--out", "masks"]) == 0
    mask = np.asarray(Image.open(folder / "masks" / "0.png"))
    assert mask.shape == (40, 48) and set(np.unique(mask)) <= {0, 1}


def test_what_cannot_be_imported_is_named(folder, capsys):
    for name, message in (
        ("nowhere:Leaves", "No module named 'nowhere'"),
        ("leaves:Trees", "has no attribute 'Trees'"),
        ("leaves:pathlib", "no subclass of scarce_jax's SegmentationBuilder"),
    ):
        assert cli.main(["prepare", name, "--source", "photos"]) == 1
        assert message in capsys.readouterr().err


def test_the_blocks_import_no_private_names(blocks):
    for text in blocks.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                assert not any(alias.name.startswith("_") for alias in node.names)
