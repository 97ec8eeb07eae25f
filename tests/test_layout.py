"""Which module may import which: the direction of imports, read from the sources."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = "scarce_jax"
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}

# What a layer may import of this package, beside itself and `errors`; a dot where it is a part of a layer only. `cli`,
# `runs`, the tools beside it and the package itself stand above all and may import anything but configs.
TOOLS = {"benchmark", "config_files", "doctor", "dry_run", "provenance", "report", "sweep", "synthetic"}
LOWER = {"cpu", "data", "evaluation", "losses", "models", "ops"}
VOCABULARY = {"optim", "recipe", "runtime"}
ALLOWED = {
    "configs": {"methods", *VOCABULARY, *LOWER},
    "methods": {*VOCABULARY, *LOWER},
    "training": {"memory", "mesh", *VOCABULARY, *LOWER},
    "recipe": {"optim", *LOWER},
    "evaluation": {"models", "losses", "ops", "cpu", "data"},
    "models": {"losses", "ops", "data.schema"},
    "losses": {"ops", "data.schema"},
    "ops": {"data.schema"},
    "data": {"cpu"},
    "cpu": {"data"},
    "errors": set(),
    "memory": set(),
    "mesh": set(),
    "optim": set(),
    "runtime": set(),
}
TOP = {"cli", "runs", "__init__", "__main__", *TOOLS}
NO_JAX = {"cpu", "data", "errors", "runtime"}


def imported(source: str, module: str) -> set[str]:
    """Absolute names of every module that a source text imports, also inside functions.

    Args:
      module: the text's own dotted name; of a package's own file it ends in `.__init__`.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import name`: the name may be a module.
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def faults(source: str, module: str) -> list[str]:
    """What a module imports and may not, in words."""
    parts = module.split(".")
    layer = parts[0] if parts[0] != PACKAGE else parts[1]
    bad = []
    for name in sorted(imported(source, module)):
        top, *rest = name.split(".")
        if top == "tensorflow":
            bad.append(f"{module} imports {name}: nothing may import TensorFlow")
        if top in JAX and layer in NO_JAX:
            bad.append(f"{module} imports {name}: {layer} must not load JAX")
        if top == "configs" or (top == PACKAGE and not may_import(layer, ".".join(rest))):
            bad.append(f"{module} imports {name}: {layer} must not")
    return bad


def may_import(layer: str, target: str) -> bool:
    if layer in TOP:
        return True
    return any(f"{target}.".startswith(f"{allowed}.") for allowed in (layer, "errors", *ALLOWED[layer]))


def sources() -> dict[str, pathlib.Path]:
    found = [*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in found}


def test_imports_point_one_way():
    modules = sources()
    assert len(modules) > 10
    layers = {name.split(".")[1] for name in modules if name.startswith(PACKAGE)}
    assert layers <= {*ALLOWED, *TOP}, "a new layer: say in this test what it may import"
    bad = [fault for name, path in modules.items() for fault in faults(path.read_text(), name)]
    assert not bad, "\n" + "\n".join(bad)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("scarce_jax.training.loop", "import scarce_jax.methods.detailer"),
        ("scarce_jax.training.loop", "from scarce_jax import methods"),
        ("scarce_jax.training.loop", "def f():\n    from ..methods import detailer"),
        ("scarce_jax.training.__init__", "from ..cli import main"),
        ("scarce_jax.training.loop", "from scarce_jax.cli import main"),
        ("scarce_jax.training.loop", "from scarce_jax import runs"),
        ("scarce_jax.evaluation.predict", "from scarce_jax.training.run import run"),
        ("scarce_jax.methods.detailer", "from scarce_jax.training.run import run"),
        ("scarce_jax.methods.detailer", "from scarce_jax.training import loop"),
        ("scarce_jax.models.pspnet", "from scarce_jax.data.source import Rows"),
        ("scarce_jax.ops.augment", "from scarce_jax.models import pspnet"),
        ("scarce_jax.losses", "import configs.detailer_camvid"),
        ("scarce_jax.data.source", "import jax.numpy as jnp"),
        ("scarce_jax.cpu.superpixels", "from flax import linen"),
        ("scarce_jax.data.builders.voc", "import tensorflow as tf"),
        ("scarce_jax.cli.train", "def f():\n    import tensorflow.io"),
        ("scarce_jax.cli.train", "import configs"),
        ("configs.detailer_camvid", "from scarce_jax.training.run import run"),
        ("configs.detailer_camvid", "from scarce_jax import runs"),
    ],
)
def test_a_wrong_import_is_found(module, line):
    assert len(faults(line, module)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("scarce_jax.training.run", "from scarce_jax.data.budget import Budget\nfrom . import loop"),
        ("scarce_jax.methods.detailer", "from scarce_jax.recipe import Train\nimport jax"),
        (
            "scarce_jax.data.source",
            "import tensorflow_datasets as tfds\nfrom scarce_jax.errors import InputError",
        ),
        ("scarce_jax.__init__", "from scarce_jax import methods, runs"),
        ("scarce_jax.cli.train", "from scarce_jax.training import run"),
        ("configs.detailer_camvid", "from scarce_jax.methods.detailer import Config"),
    ],
)
def test_a_right_import_passes(module, line):
    assert faults(line, module) == []


@pytest.mark.parametrize(
    "module",
    ["scarce_jax", "data.budget", "data.records", "data.images", "data.schema", "cpu.workers", "cpu.diffusion"],
)
def test_light_modules_load_no_jax(module):
    name = module if module == PACKAGE else f"{PACKAGE}.{module}"
    code = f"import sys, {name}; print(sorted({JAX!r} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
