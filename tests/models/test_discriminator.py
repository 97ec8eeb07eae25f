"""Discriminator of Hung et al.: size, input sizes, what it reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.discriminator import Discriminator
from tests.models.shapes import abstract, gradients_reach_every_parameter, parameters, random_image, random_variables


@pytest.mark.parametrize(("classes", "count"), [(19, 2_781_121), (21, 2_783_169)])
def test_parameter_count(classes, count):
    assert parameters(Discriminator(classes), (1, 64, 64, classes)) == count


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


def test_width_scales_every_layer():
    params = abstract(Discriminator(7, width=4), (1, 32, 32, 7))[1]["params"]
    shapes = [params[f"conv{i}"]["kernel"].shape for i in range(1, 5)] + [params["classifier"]["kernel"].shape]
    assert shapes == [(4, 4, 7, 4), (4, 4, 4, 8), (4, 4, 8, 16), (4, 4, 16, 32), (4, 4, 32, 1)]


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


def test_training_reaches_everything():
    gradients_reach_every_parameter(Discriminator(3, width=2), random_image(2, 64, 33, 3))


def test_images_are_judged_alone():
    module = Discriminator(5, width=4)
    x = jax.nn.softmax(3 * random_image(2, 64, 64, 5))
    variables = random_variables(module, x.shape)
    apply = jax.jit(lambda x: module.apply(variables, x, train=False))
    logits = apply(x)
    np.testing.assert_allclose(apply(x.at[0].set(0.2))[1], logits[1], atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_dtypes_and_description():
    logits, variables = abstract(Discriminator(3, width=4, dtype=jnp.bfloat16), (1, 32, 32, 3), train=True)
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert "0x" not in repr(Discriminator(3, dtype=jnp.bfloat16))


def test_an_input_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="input of the discriminator is 31 x 40; expected at least 32 x 32"):
        abstract(Discriminator(3), (1, 31, 40, 3))
    with pytest.raises(ValueError, match=r"class maps have shape \(1, 32, 32, 3\); expected 4 channels"):
        abstract(Discriminator(4), (1, 32, 32, 3))
