"""Discriminator of Hung et al.: input sizes, layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.discriminator import Discriminator
from tests.models.shapes import abstract, random_image


@pytest.mark.parametrize("size", [(512, 1024), (321, 321), (32, 47)])
def test_one_logit_per_pixel_at_input_size(size):
    module = Discriminator(19)
    logits, variables = abstract(module, (2, *size, 19))
    assert logits.shape == (2, *size) and logits.dtype == jnp.float32
    x = jax.ShapeDtypeStruct((2, *size, 19), jnp.float32)
    _, state = jax.eval_shape(lambda v, x: module.apply(v, x, train=False, capture_intermediates=True), variables, x)
    shapes = {name: value["__call__"][0].shape[1:] for name, value in state["intermediates"].items() if name[0] == "c"}
    halved = {f"conv{i}": (size[0] >> i, size[1] >> i, 32 << i) for i in range(1, 5)}
    assert shapes == halved | {"classifier": (size[0] >> 5, size[1] >> 5, 1)}


def test_equals_the_slow_network():
    # Weights whose convolutions only sum a 4x4 window's pixels times a number: leaky ReLUs and padding by hand.
    factors = [1.0, -1.0, 0.5, 2.0, -1.0]
    module = Discriminator(1, width=1)
    x = random_image(1, 32, 32, 1)
    variables = abstract(module, x.shape)[1]
    names = ["conv1", "conv2", "conv3", "conv4", "classifier"]
    params = {}
    for index, (name, factor) in enumerate(zip(names, factors, strict=True)):
        kernel = np.zeros(variables["params"][name]["kernel"].shape, np.float32)
        kernel[:, :, 0, 0] = factor
        params[name] = {"kernel": kernel, "bias": np.full(kernel.shape[-1], index, np.float32)}
    logits = jax.jit(lambda p, x: module.apply({"params": p}, x, train=False))(params, x)
    y = np.asarray(x[0, :, :, 0], np.float64)
    for index, factor in enumerate(factors):
        padded = np.pad(y, 1)
        half = len(y) // 2
        sums = [[padded[2 * i : 2 * i + 4, 2 * j : 2 * j + 4].sum() for j in range(half)] for i in range(half)]
        y = factor * np.asarray(sums) + index
        if index < 4:
            y = np.where(y > 0, y, 0.2 * y)
    np.testing.assert_allclose(logits, np.broadcast_to(y, logits.shape), rtol=1e-4)


def test_an_input_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="input of the discriminator is 31 x 40; expected at least 32 x 32"):
        abstract(Discriminator(3), (1, 31, 40, 3))
    with pytest.raises(ValueError, match=r"class maps have shape \(1, 32, 32, 3\); expected 4 channels"):
        abstract(Discriminator(4), (1, 32, 32, 3))
