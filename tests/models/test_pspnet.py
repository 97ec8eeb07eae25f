"""PSPNet: layer sizes at other depths, what training adds, pyramid pooling."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.pspnet import Embedding, Level, PartsConv, PSPNet, PyramidPooling
from scarce_jax.models.resnet import ResNet
from scarce_jax.ops.resize import resize_bilinear
from tests.models.shapes import UNOPTIMISED, abstract, random_variables

SMALL = {"classes": 5, "backbone": ResNet(18, width=8), "width": 8}


def test_head_scales_with_width_and_depth():
    params = abstract(PSPNet(5, ResNet(50, width=16), 16), (1, 33, 33, 3))[1]["params"]
    assert params["ppm"]["bin6"]["conv"]["kernel"].shape == (1, 1, 512, 128)
    assert params["final_block"]["conv"]["kernel"].shape == (3, 3, 1024, 128)
    assert params["classifier"]["kernel"].shape == (1, 1, 128, 5)
    assert params["aux_block"]["conv"]["kernel"].shape == (3, 3, 256, 64)
    # Basic blocks have a quarter of the channels in layer4, and so have the levels of the PPM.
    (_, aux_logits), variables = abstract(PSPNet(5, ResNet(18, width=16), 16), (1, 33, 33, 3))
    params = variables["params"]
    assert params["ppm"]["bin6"]["conv"]["kernel"].shape == (1, 1, 128, 32)
    assert params["final_block"]["conv"]["kernel"].shape == (3, 3, 256, 128)
    assert aux_logits is None  # in inference, though its parameters are there


def test_training_gives_auxiliary_logits_and_drops_channels():
    module = PSPNet(**SMALL, dropout=0.5)
    variables = random_variables(module, (2, 33, 33, 3))
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 33, 33, 3)), jnp.float32)

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def apply(variables, image, key):
        logits, state = module.apply(
            variables,
            image,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
        )
        return [head.full() for head in logits], state

    (logits, aux_logits), state = apply(variables, image, jax.random.key(0))
    assert logits.shape == aux_logits.shape == (2, 33, 33, 5)
    for name in ("final_dropout", "aux_dropout"):
        features = np.asarray(state["intermediates"][name]["__call__"][0])  # [B, h, w, C] after a ReLU
        dropped = (features == 0).all((1, 2))
        assert 0.3 < dropped.mean() < 0.8
    other, _ = apply(variables, image, jax.random.key(1))
    assert np.abs(other[0] - logits).max() > 1e-3


def test_pyramid_levels_are_averages_over_bins():
    # A level that passes its average through: two of eight channels, neutral batch normalisation.
    x = jnp.asarray(np.random.default_rng(0).random((1, 6, 6, 8)), jnp.float32)
    module = PyramidPooling()
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), (x,), train=False))
    variables = jax.tree.map_with_path(
        lambda path, leaf: (
            jnp.eye(8, 2).reshape(leaf.shape)
            if path[-1].key == "kernel"
            else jnp.full(leaf.shape, float(path[-1].key in ("scale", "var")))
        ),
        variables,
    )
    visual, *levels = jax.jit(lambda v, x: module.apply(v, (x,), train=False))(variables, x)
    np.testing.assert_array_equal(visual, x)
    x = x[..., :2]
    one, two, three, six = (resize_bilinear(level.grid, (6, 6), align_corners=True) for level in levels)
    np.testing.assert_allclose(one, jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape), atol=1e-4)
    np.testing.assert_allclose(six, x, atol=1e-4)
    # With aligned corners the corner pixels are the corner bins.
    for level, cell in ((two, 3), (three, 2)):
        np.testing.assert_allclose(level[0, 0, 0], x[0, :cell, :cell].mean((0, 1)), atol=1e-4)
        np.testing.assert_allclose(level[0, -1, 0], x[0, -cell:, :cell].mean((0, 1)), atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_of_parts_equals_that_of_the_concatenation(kernel):
    rng = np.random.default_rng(0)
    first, second = (jnp.asarray(rng.normal(size=(2, 5, 6, c)), jnp.float32) for c in (3, 4))
    # A constant channel too: as a bias it must stop at the padding like any feature.
    inputs = jnp.concatenate([jnp.asarray(rng.random((2, 5, 6, 2)), jnp.float32), jnp.ones((2, 5, 6, 1))], -1)
    weights = jnp.asarray(rng.normal(size=(3, 10)), jnp.float32)
    grids = [jnp.asarray(rng.normal(size=(2, n, n, c)), jnp.float32) for n, c in ((3, 4), (1, 2))]

    def joined(first, inputs, weights, second, *grids):
        expanded = jnp.einsum("bhwk,kc->bhwc", inputs, weights)
        resized = [resize_bilinear(grid, (5, 6), align_corners=True) for grid in grids]
        return jnp.concatenate([first, expanded, resized[0], second, resized[1]], -1)

    def split(first, inputs, weights, second, one, two):
        return first, Embedding(inputs, weights), Level(one), second, Level(two)

    arrays = (first, inputs, weights, second, *grids)
    module = PartsConv(7, kernel, use_bias=True)
    parts, concatenation = split(*arrays), joined(*arrays)
    whole = nn.Conv(7, (kernel, kernel), padding="SAME")
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), parts))
    assert shapes == jax.eval_shape(lambda: whole.init(jax.random.key(0), concatenation))
    variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)
    cotangent = jnp.asarray(rng.normal(size=(2, 5, 6, 7)), jnp.float32)

    def of_parts(variables, arrays):
        return module.apply(variables, split(*arrays))

    def of_concatenation(variables, arrays):
        return whole.apply(variables, joined(*arrays))

    results = [
        jax.jit(lambda v, a, f=f: (f(v, a), jax.vjp(f, v, a)[1](cotangent)))(variables, arrays)
        for f in (of_parts, of_concatenation)
    ]
    for result, expected in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)
