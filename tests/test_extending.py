"""The dataset, losses, method, config and backbone of docs/extend: short, and they run as written."""

import ast
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from scarce_jax import cli, runs
from scarce_jax.methods.segmentation import SegmentationLoss
from scarce_jax.models.tiny import TinyConfig
from scarce_jax.recipe import NetState
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
    """The Python files of docs/extend, by name."""
    pages = [page.read_text() for page in sorted((ROOT / "docs/extend").glob("*.md"))]
    files = [file for page in pages for file in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, re.DOTALL)]
    assert sorted(name for name, _ in files) == ["focal.py", "leaves.py", "mine.py", "penalty.py", "plain.py"]
    # A block without the name of a file would run in no test.
    assert sum(page.count("```python") for page in pages) == len(files)
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
    for name, text in {**blocks, "tiny_config.py": CONFIG}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in ("focal", "leaves", "penalty"):
        sys.modules.pop(name, None)


def test_they_are_short(blocks):
    for text in blocks.values():
        lines = [line for line in text.splitlines() if line.strip()]
        assert 0 < len(lines) < 45


def test_dataset_and_method_run_as_written(folder, capsys):
    data = ["--data-dir", "data"]
    assert cli.main(["prepare", "leaves:Leaves", "--source", "photos", *data]) == 0
    assert cli.main(["check", "leaves:Leaves", *data]) == 0
    assert cli.main(["train", "tiny_config.py", "--penalty", "0.2", "--workdir", "run", *data]) == 0
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
    assert cli.main(["train", "mine.py", "--dry-run", "--json"]) == 0
    (stage,) = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]
    assert stage["steps"] == 300 and stage["nets"]["segmenter"]["trainable"] > 1e6


def test_the_focal_loss_is_cross_entropy_at_gamma_0_and_less_above(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    from focal import FocalLoss
    from penalty import DoubtfulLoss

    net = TinyConfig().build(3, jnp.float32)
    draw = np.random.default_rng(0)
    image = jnp.asarray(draw.normal(size=(2, 16, 16, 3)), jnp.float32)
    label = jnp.asarray(draw.choice([0, 1, 2, 255], (2, 16, 16)), jnp.uint8)
    variables = net.init(jax.random.key(0), image, train=False)
    state = NetState(params=variables["params"], batch_stats=variables.get("batch_stats", {}))
    batch = {"labelled": {"image": image, "label": label}}
    plain = SegmentationLoss(module=net, aux_weight=0.0)

    def value(loss):
        def of_parameters(params):
            return loss(params, {"segmenter": state}, batch, {}, jax.random.key(1))[0]

        return jax.value_and_grad(of_parameters)(state.params)

    cross_entropy, slope = value(plain)
    same, same_slope = value(FocalLoss(plain, gamma=0.0))
    np.testing.assert_allclose(same, cross_entropy, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), same_slope, slope)
    assert 0 < value(FocalLoss(plain))[0] < cross_entropy
    # The doubt is a part of the gradient too.
    _, doubtful = value(DoubtfulLoss(plain, 0.5))
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(*map(jax.tree.leaves, (doubtful, slope)), strict=True))


def test_another_penalty_is_another_stage(folder, capsys):
    data = ["--data-dir", "data"]
    assert cli.main(["prepare", "leaves:Leaves", "--source", "photos", *data]) == 0
    assert cli.main(["train", "tiny_config.py", "--workdir", "run", *data]) == 0
    assert cli.main(["train", "tiny_config.py", "--penalty", "0.5", "--workdir", "run", *data]) == 1
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
