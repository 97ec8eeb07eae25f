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

# From the lowest to the highest: a module imports from its own row and from lower ones.
ROWS = (
    {"errors", "ranges", "runtime", "shipped"},
    {"cpu", "data"},
    {"memory", "mesh", "ops", "optim"},
    {"losses"},
    {"models"},
    {"evaluation", "recipe"},
    {"training"},
    {"methods"},
    {"configs"},
    {"config_files", "provenance"},
    {"run_folder", "runs"},
    {"benchmark", "doctor", "dry_run", "proposal", "report", "sweep", "synthetic"},
    {"cli", "__init__", "__main__"},
)
ROW = {layer: number for number, row in enumerate(ROWS) for layer in row}
NO_JAX = {"cpu", "data", "errors", "ranges", "runtime", "shipped"}
SCHEMA_ONLY = {"cpu", "losses", "memory", "mesh", "models", "ops", "optim"}
"""Of `data` these import the schema alone."""
DESCRIBE = {"methods", "configs"}
"""They say what is trained, and run nothing."""


def imported(source: str, module: str) -> set[str]:
    """Absolute names of every module that a source text imports, also inside functions.

    Args:
      module: the text's own dotted name; that of a package's own file ends in `.__init__`.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import name`: the name may be a module.
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def layer_of(module: str) -> str:
    """The layer of a module: "training" of `scarce_jax.training.loop`, `__init__` of the package's own names."""
    top, *rest = module.split(".")
    if top != PACKAGE:
        return top
    return rest[0] if rest and rest[0] in ROW else "__init__"


def faults(source: str, module: str) -> list[str]:
    """The imports of a module that break the rule, in words."""
    layer = layer_of(module)
    wrong = []
    for name in sorted(imported(source, module)):
        top, target = name.split(".")[0], layer_of(name)
        if top == "tensorflow":
            wrong.append(f"{module} imports {name}: nothing may import TensorFlow")
        elif top in JAX and layer in NO_JAX:
            wrong.append(f"{module} imports {name}: {layer} must not load JAX")
        elif layer in SCHEMA_ONLY and target == "data" and not name.startswith(f"{PACKAGE}.data.schema"):
            wrong.append(f"{module} imports {name}: {layer} imports the schema alone")
        elif top == "configs" or (layer in DESCRIBE and target == "training"):
            wrong.append(f"{module} imports {name}: {layer} must not")
        elif top == PACKAGE and name != f"{PACKAGE}.__version__" and ROW[target] > ROW[layer]:
            wrong.append(f"{module} imports {name}: {target} stands above {layer}")
    return wrong


def sources() -> dict[str, pathlib.Path]:
    paths = [*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def test_imports_point_one_way():
    modules = sources()
    layers = {name.split(".")[1] for name in modules if name.startswith(PACKAGE)}
    assert layers | {"configs"} == set(ROW), "a layer was added or removed: change its row in this test"
    wrong = [fault for name, path in modules.items() for fault in faults(path.read_text(), name)]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("scarce_jax.training.loop", "import scarce_jax.methods.detailer"),
        ("scarce_jax.training.loop", "from scarce_jax import methods"),
        ("scarce_jax.training.loop", "def f():\n    from ..methods import detailer"),
        ("scarce_jax.training.__init__", "from ..cli import main"),
        ("scarce_jax.training.loop", "from scarce_jax import runs"),
        ("scarce_jax.training.loop", "from scarce_jax import train"),
        ("scarce_jax.evaluation.predict", "from scarce_jax.training.run import run"),
        ("scarce_jax.methods.detailer", "from scarce_jax.training import loop"),
        ("scarce_jax.models.pspnet", "from scarce_jax.recipe import Train"),
        ("scarce_jax.ops.augment", "from scarce_jax.models import pspnet"),
        ("scarce_jax.models.pspnet", "from scarce_jax.data import budget"),
        ("scarce_jax.losses", "from scarce_jax.data.records import Records"),
        ("scarce_jax.runs", "from scarce_jax.cli.common import parse"),
        ("scarce_jax.runs", "from scarce_jax.report import page"),
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
def test_a_wrong_import_is_named(module, line):
    assert len(faults(line, module)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("scarce_jax.training.run", "from scarce_jax.data.budget import Budget\nfrom . import loop"),
        ("scarce_jax.methods.detailer", "from scarce_jax.recipe import Train\nimport jax"),
        ("scarce_jax.ops.augment", "from scarce_jax.data.schema import IGNORE"),
        ("scarce_jax.data.source", "import tensorflow_datasets as tfds\nfrom scarce_jax.errors import InputError"),
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
    """Nor does a library that they import; of the other modules of `data`, Grain does."""
    name = module if module == PACKAGE else f"{PACKAGE}.{module}"
    code = f"import sys, {name}; print(sorted({JAX!r} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
