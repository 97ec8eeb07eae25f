"""What PyTorch computed with VGG-16 and the nets on top of it, and our variables with the same weights."""

import functools
import json
import pathlib

import jax
import numpy as np

from scarce_jax.models import weights
from tests import torch_files
from tests.models.golden import recipe
from tests.models.shapes import abstract

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "vgg.npz")


def tensors(case):
    """Every array of a case as a file of PyTorch holds it."""
    shapes = json.loads(GOLDEN[f"{case}/shapes"].tobytes())
    return {key: recipe.weight(key, shape, recipe.gain_of(case)) for key, shape in shapes.items()}


def variables(module, case, folder, shape=recipe.SIZE):
    """Those of a case: the trunk as `import_weights` takes it from a file, other layers by their names."""
    expected = weights.flat_shapes(abstract(module, shape)[1])
    arrays, values = tensors(case), {}
    if "features.0.weight" in arrays:
        values |= weights.import_weights(torch_files.save(folder / "w.safetensors", arrays), expected).values
    for key, value in arrays.items():
        layer, _, leaf = key.rpartition(".")
        name = f"params/{layer}/{'kernel' if leaf == 'weight' else leaf}"
        if name in expected:
            values[name] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    assert {name: value.shape for name, value in values.items()} == expected
    return weights.overlay({}, values)


def compiled(function):
    """Without optimisation: each runs once or twice, and compiling is what takes long."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@functools.lru_cache
def forward(module, method=None):
    """(variables, image) -> what the module computes in inference."""
    options = {"method": method} if method else {"train": False}
    return compiled(functools.partial(module.apply, **options))


def assert_golden(output, case, index=0):
    stored = GOLDEN[f"{case}/{index}"]
    assert stored.std() > 0.1
    tolerance = 1e-5 * max(1, np.abs(stored).max())
    np.testing.assert_allclose(recipe.sample(np.asarray(output)), stored, rtol=0, atol=tolerance)
