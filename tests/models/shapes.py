"""What tests of networks share: shapes without computing, and variables without compiling their initialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiler options for what runs once or twice: compiling takes longer than running."""


def abstract(module, *inputs, train=False):
    """(outputs, variables) as shapes; an input is an array, its ShapeDtypeStruct, or the shape of a float32 one."""
    shapes = ((x, jnp.float32) if isinstance(x, tuple) else (x.shape, x.dtype) for x in inputs)
    return _abstract(module, tuple(jax.ShapeDtypeStruct(*x) for x in shapes), train)


@functools.lru_cache
def _abstract(module, structs, train):
    return jax.eval_shape(lambda key, *x: module.init_with_output(key, *x, train=train), jax.random.key(0), *structs)


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def random_variables(module, *inputs):
    """Values of sensible sizes without hundreds of random generators to compile."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        deviation = np.prod(leaf.shape[:-1]) ** -0.5 if path[-1].key == "kernel" else 0.1
        return jnp.asarray(rng.normal(size=leaf.shape) * deviation, jnp.float32)

    return jax.tree.map_with_path(draw, abstract(module, *inputs)[1])


def random_image(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def integers(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.uint8)


def segmentation_inputs(width, side, batch=2):
    """Those of the decoupled method's segmentation net for square images: pool5, its saliency, five switches."""
    channels = (width, 2 * width, 4 * width, 8 * width, 8 * width)
    switches = [(batch, side >> i, side >> i, c) for i, c in enumerate(channels, start=1)]
    return [switches[-1], switches[-1], *(integers(*shape) for shape in switches)]
