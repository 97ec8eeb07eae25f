"""What tests of networks share: shapes without computing, and variables without compiling their initialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def abstract(module, *shapes, train=False):
    """(outputs, variables) as shapes, for float32 inputs of these shapes."""
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.eval_shape(lambda key, *x: module.init_with_output(key, *x, train=train), jax.random.key(0), *inputs)


def parameters(module, *shapes):
    return sum(x.size for x in jax.tree.leaves(abstract(module, *shapes)[1]["params"]))


def random_variables(module, *shapes):
    """Values of sensible sizes without hundreds of random generators to compile."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        deviation = np.prod(leaf.shape[:-1]) ** -0.5 if path[-1].key == "kernel" else 0.1
        return jnp.asarray(rng.normal(size=leaf.shape) * deviation, jnp.float32)

    return jax.tree.map_with_path(draw, abstract(module, *shapes)[1])


def random_image(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def gradients_reach_every_parameter(module, x):
    """Fails on a parameter without influence on the training output, or statistics that training leaves alone."""
    variables = random_variables(module, x.shape)

    # Run once, so compiling is what takes long.
    @functools.partial(
        jax.jit,
        compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
    )
    def step(variables, x):
        def loss(params):
            y, new = module.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            y = y[0] if isinstance(y, tuple) else y
            return jnp.mean(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), new

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradient, new = step(variables, x)
    for path, value in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(value).all() and np.abs(value).max() > 0, jax.tree_util.keystr(path)
    old = variables.get("batch_stats", {})
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), new.get("batch_stats", {}), old)
    assert all(jax.tree.leaves(changed))
