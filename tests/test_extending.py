"""The README's own dataset, loss, method and backbone: short, and they run as written."""

import ast
import json
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from scarce_jax import cli, runs
from tests import tiny

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
    assert [name for name, _ in files] == ["leaves.py", "penalty.py", "plain.py"]
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


def test_they_are_short(blocks):
    for text in blocks.values():
        lines = [line for line in text.splitlines() if line.strip()]
        assert 0 < len(lines) < 45


def test_dataset_and_method_run_as_written(folder, capsys):
    data = ["--data-dir", "data"]
    assert cli.main(["prepare", "leaves:Leaves", "--source", "photos", *data]) == 0
    assert cli.main(["check", "leaves:Leaves", *data]) == 0
    assert cli.main(["train", "mine.py", "--penalty", "0.2", "--workdir", "run", *data]) == 0
    assert json.loads((folder / "run/config.json").read_text())["config"]["penalty"] == 0.2
    figures = runs.evaluate("run", data_dir="data")
    assert figures["images"] == 3 and set(figures["per_class"]) == {"soil", "leaf"}
    # A run folder names the modules. What this process has imported is found, and nothing else without permission.
    for name in ("leaves", "penalty"):
        del sys.modules[name]
    capsys.readouterr()
    predict = ["predict", "run", "photos/val/0.jpg", "--out", "masks"]
    assert cli.main(predict) == 1 and not (folder / "masks").exists()
    assert "method 'penalty': " in (message := capsys.readouterr().err) and "--allow-import" in message
    assert cli.main([*predict, "--allow-import"]) == 0
    mask = np.asarray(Image.open(folder / "masks" / "0.png"))
    assert mask.shape == (40, 48) and set(np.unique(mask)) <= {0, 1}


def test_its_config_runs_as_written(folder, capsys):
    text = (ROOT / "README.md").read_text()
    block = re.search(r"folder that has `penalty.py`:\n\n((?:    .*\n|\n)+)", text)[1]
    (folder / "theirs.py").write_text(textwrap.dedent(block))
    assert cli.main(["train", "theirs.py", "--dry-run", "--json"]) == 0
    (stage,) = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]
    assert stage["steps"] == 300 and stage["nets"]["segmenter"]["trainable"] > 1e6


def test_another_penalty_is_another_stage(folder, capsys):
    data = ["--data-dir", "data"]
    assert cli.main(["prepare", "leaves:Leaves", "--source", "photos", *data]) == 0
    assert cli.main(["train", "mine.py", "--workdir", "run", *data]) == 0
    assert cli.main(["train", "mine.py", "--penalty", "0.5", "--workdir", "run", *data]) == 1
    assert "turns: " in capsys.readouterr().err


def test_a_backbone_is_one_file_and_its_name_in_one_other(blocks, tmp_path):
    package = shutil.copytree(ROOT / "scarce_jax", tmp_path / "scarce_jax")
    (package / "models/plain.py").write_text(blocks["plain.py"])
    path = package / "models/backbones.py"
    text = path.read_text()
    text = text.replace("[ResNetConfig | ", "[ResNetConfig | PlainConfig | ")
    text = text.replace("import ResNetConfig", "import ResNetConfig\nfrom scarce_jax.models.plain import PlainConfig")
    path.write_text(text)

    def dry_run(*flags):
        config = ROOT / "configs/supervised_scenes.py"
        argv = [sys.executable, "-m", "scarce_jax", "train", str(config), "--dry-run", "--json", *flags]
        env = {**tiny.environment(), "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode in (0, 2), done.stderr
        return done

    argv = ["--segmenter.net", "fcn", "--segmenter.net.layers", "0"]
    argv += ["--segmenter.net.backbone", "plain", "--segmenter.net.backbone.width", "8"]
    (net,) = json.loads(dry_run(*argv).stdout.splitlines()[-1])["stages"][0]["nets"].values()
    classes = 12
    assert net["trainable"] == 3 * 9 * 8 + 8 + 8 * 9 * 16 + 16 + 2 * 16 + 16 * classes + classes
    (net,) = json.loads(dry_run(*argv, "--target", "tags").stdout.splitlines()[-1])["stages"][0]["nets"].values()
    assert net["trainable"] == 3 * 9 * 8 + 8 + 8 * 9 * 16 + 16 + 17 * (classes - 1)
    assert "--segmenter.net.backbone.depth" in dry_run(*argv, "--segmenter.net.backbone.depth", "18").stderr


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
