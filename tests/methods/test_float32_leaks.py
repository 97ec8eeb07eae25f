"""In bfloat16 the training steps of the papers compute nothing large in float32, but for what is named here.

Steps are traced, not compiled. Elementwise operations, reductions and gathers are not looked at: XLA fuses them with
what reads them, so that a float32 value between two of them is never in memory.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from scarce_jax import dry_run, synthetic
from scarce_jax import mesh as mesh_lib
from scarce_jax.cli.common import load_config
from scarce_jax.recipe import Train
from tests import tiny

LIMIT = 50_000_000
"""Bytes of an array from which on it is large."""

NOT_FUSED = {
    "conv_general_dilated",
    "cumsum",
    "dot_general",
    "reduce_window",
    "reduce_window_max",
    "reduce_window_sum",
    "scatter",
    "scatter-add",
    "select_and_scatter_add",
    "sort",
}

CHOICE = "logits of a frozen net, from which a class or a probability is read: one array, without a gradient"

BLUR = "the median of the augmentation sorts 25 shifted images"

NAMED = {
    ("auxiliary_cityscapes", "auxiliary"): {(4, 129, 257, 304): CHOICE},
    ("auxiliary_cityscapes_deeplabv2", "auxiliary"): {(2, 512, 19456): CHOICE},
    ("decoupled_voc", "decoupled"): {(64, 320, 320, 2): "the results of the head, the logits of all pixels"},
    ("detailer_cityscapes_850", "detailer"): {(8, 850, 2033): "the rows of resized logits, small at other sizes"},
    ("three_step_voc", "classifier"): {(40, 25, 352, 352, 3): BLUR},
    ("three_step_voc", "irnet"): {(32, 25, 512, 512, 3): BLUR},
    ("three_step_voc", "segmenter"): {(12, 25, 352, 352, 3): BLUR},
}
"""(config, stage) -> shape of a large float32 array and the reason for it."""


def equations(jaxpr):
    """All equations of a traced program, on a GPU."""
    for equation in jaxpr.eqns:
        platforms = equation.params.get("branches_platforms")
        if platforms:
            chosen = [index for index, names in enumerate(platforms) if names is None or "cuda" in names][0]
            inner = [equation.params["branches"][chosen]]
        else:
            values = jax.tree.leaves(equation.params, is_leaf=lambda value: hasattr(value, "jaxpr"))
            inner = [value for value in values if hasattr(value, "jaxpr") or hasattr(value, "eqns")]
        if not inner:
            yield equation
        for closed in inner:
            yield from equations(getattr(closed, "jaxpr", closed))


def large_shapes(jaxpr):
    """Shapes of the large float32 operands and results of operations that are not fused."""
    return {
        value.aval.shape
        for equation in equations(jaxpr)
        if equation.primitive.name in NOT_FUSED
        for value in (*equation.invars, *equation.outvars)
        if value.aval.dtype == jnp.float32 and 4 * value.aval.size > LIMIT
    }


class Traced:
    """A training step whose lowering is its trace."""

    def __init__(self, step):
        self.step = step

    def lower(self, *arguments):
        return self.step.trace(*arguments).jaxpr.jaxpr


def test_a_leak_is_seen():
    def leaking(x, kernel):
        return jnp.sum(jax.nn.relu(x.astype(jnp.float32)) @ kernel)

    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((4, 1000, 8000), (8000, 8)))
    program = jax.jit(jax.grad(leaking)).trace(x, kernel).jaxpr.jaxpr
    assert large_shapes(program) == {(4, 1000, 8000)}
    without = jax.jit(jax.grad(lambda x, k: leaking(x[:1], k))).trace(x, kernel).jaxpr.jaxpr
    assert not large_shapes(without)


@pytest.mark.parametrize(
    "name",
    [
        "auxiliary_cityscapes",
        "decoupled_voc",
        "transfer_voc_split1",
        pytest.param("auxiliary_cityscapes_deeplabv2", marks=pytest.mark.slow),
        pytest.param("detailer_cityscapes", marks=pytest.mark.slow),
        pytest.param("detailer_cityscapes_850", marks=pytest.mark.slow),
        pytest.param("three_step_voc", marks=pytest.mark.slow),
    ],
)
def test_training_in_bfloat16_has_no_large_float32_arrays(name, monkeypatch):
    make_step = synthetic.make_step
    monkeypatch.setattr(synthetic, "make_step", lambda *arguments: Traced(make_step(*arguments)))
    config = dataclasses.replace(load_config(tiny.ROOT / "configs" / f"{name}.py"), dtype="bfloat16")
    info, recipe = dry_run.known_recipe(config, None)
    mesh = mesh_lib.make_mesh(jax.devices()[:1])
    stages = [stage for stage in recipe.stages if isinstance(stage, Train)]
    found = {stage.name: large_shapes(synthetic.lower(stage, recipe, info, mesh)) for stage in stages}
    assert found == {stage.name: set(NAMED.get((name, stage.name), {})) for stage in stages}
