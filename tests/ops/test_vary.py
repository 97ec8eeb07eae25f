"""Functions with written gradients inside `jax.shard_map`: parameters are equal on all devices, images are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from scarce_jax.mesh import AXIS, make_mesh
from scarce_jax.ops.batch_norm import normalise
from scarce_jax.ops.bias import add_bias
from scarce_jax.ops.dilated import dilated_convolution
from scarce_jax.ops.product import float32_product


def draw(number, *shape):
    return jax.random.normal(jax.random.key(number), shape)


def normalised_apart(x, scale, bias):
    """Each image by its own statistics, which do not depend on the number of devices."""
    return normalise(x, scale, bias, None, 1e-5, True, jnp.float32, len(x))[0]


CASES = {
    "bias": (lambda x, bias: add_bias(x, bias, None, True), (draw(1, 5),)),
    "dilated": (lambda x, kernel: dilated_convolution(x, kernel, 2), (draw(1, 3, 3, 5, 4),)),
    "product": (float32_product, (draw(1, 5, 4),)),
    "batch norm": (normalised_apart, (1 + draw(1, 5), draw(2, 5))),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_parameters_are_summed_over_devices(case):
    function, params = CASES[case]
    x = draw(0, 4, 6, 7, 5)
    mesh = make_mesh(jax.devices()[:2])

    def gradient(params, x):
        return jax.grad(lambda params: jnp.sum(jnp.sin(function(x, *params))))(params)

    sharded = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P()))
    for found, expected in zip(sharded(params, x), jax.jit(gradient)(params, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
