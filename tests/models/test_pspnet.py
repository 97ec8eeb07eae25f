"""PSPNet: the authors' layer sizes, any input size, what training adds."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.pspnet import Embedding, PartsConv, PSPNet, PyramidPooling

SMALL = {"classes": 5, "depth": 18, "width": 8}


def abstract(module, size=(1, 33, 33, 3), **kwargs):
    image = jax.ShapeDtypeStruct(size, jnp.float32)
    kwargs = {"train": False} | kwargs
    return jax.eval_shape(lambda key, x: module.init_with_output(key, x, **kwargs), jax.random.key(0), image)


def random_variables(module, size):
    """Variables of sensible sizes without compiling hundreds of random generators."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(rng.normal(size=leaf.shape) * 0.1, jnp.float32)

    return jax.tree.map_with_path(draw, abstract(module, size)[1])


@pytest.mark.parametrize(
    ("deep_stem", "aux", "parameters"),
    [
        (False, False, 65_583_699),
        (False, True, 67_948_390),
        (True, False, 65_707_475),
        (True, True, 68_072_166),
    ],
)
def test_parameter_count(deep_stem, aux, parameters):
    _, variables = abstract(PSPNet(classes=19, deep_stem=deep_stem, aux=aux))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == parameters


@pytest.mark.parametrize("size", [(340, 340), (850, 850), (33, 47)])
def test_logits_have_the_size_of_the_image(size):
    (logits, aux_logits), variables = abstract(PSPNet(classes=19, depth=18), (2, *size, 3))
    assert logits.shape == (2, *size, 19) and logits.dtype == jnp.float32
    assert aux_logits is None
    assert "aux_block" in variables["params"]  # though initialised with train=False


def test_head_scales_with_width_and_depth():
    params = abstract(PSPNet(classes=5, depth=50, width=16))[1]["params"]
    assert params["ppm"]["bin6"]["conv"]["kernel"].shape == (1, 1, 512, 128)
    assert params["final_block"]["conv"]["kernel"].shape == (3, 3, 1024, 128)
    assert params["classifier"]["kernel"].shape == (1, 1, 128, 5)
    assert params["aux_block"]["conv"]["kernel"].shape == (3, 3, 256, 64)
    # Basic blocks have a quarter of the channels in layer4, and so have the levels of the PPM.
    params = abstract(PSPNet(classes=5, depth=18, width=16))[1]["params"]
    assert params["ppm"]["bin6"]["conv"]["kernel"].shape == (1, 1, 128, 32)
    assert params["final_block"]["conv"]["kernel"].shape == (3, 3, 256, 128)


def test_training_gives_auxiliary_logits_statistics_and_dropped_channels():
    module = PSPNet(**SMALL, dropout=0.5)
    variables = random_variables(module, (2, 33, 33, 3))
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 33, 33, 3)), jnp.float32)

    @jax.jit
    def apply(variables, image, key):
        return module.apply(
            variables,
            image,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
        )

    (logits, aux_logits), state = apply(variables, image, jax.random.key(0))
    assert logits.shape == aux_logits.shape == (2, 33, 33, 5)
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), state["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(changed))
    for name in ("final_dropout", "aux_dropout"):
        features = np.asarray(state["intermediates"][name]["__call__"][0])  # [B, h, w, C] after a ReLU
        dropped = (features == 0).all((1, 2))
        assert 0.3 < dropped.mean() < 0.8
    other, _ = apply(variables, image, jax.random.key(1))
    assert np.abs(other[0] - logits).max() > 1e-3


def test_evaluation_needs_no_key_and_treats_images_alone():
    module = PSPNet(**SMALL)
    variables = random_variables(module, (2, 33, 41, 3))
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 33, 41, 3)), jnp.float32)
    apply = jax.jit(lambda image: module.apply(variables, image, train=False)[0])
    logits = apply(image)
    np.testing.assert_allclose(apply(image.at[0].set(0))[1], logits[1], atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-2


def test_without_auxiliary_head_training_gives_none():
    (_, aux_logits), variables = abstract(PSPNet(**SMALL, aux=False, dropout=0.0), train=True)
    assert aux_logits is None
    assert not [name for name in variables["params"] if name.startswith("aux")]


def test_bfloat16_computes_float32_logits_from_float32_variables():
    module = PSPNet(**SMALL, dtype=jnp.bfloat16, dropout=0.0)
    (logits, aux_logits), variables = abstract(module, train=True)
    assert logits.dtype == aux_logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_pyramid_levels_are_averages_over_bins():
    # A level that passes its average through: identity 1x1 convolution, neutral batch normalisation.
    x = jnp.asarray(np.random.default_rng(0).random((1, 6, 6, 2)), jnp.float32)
    module = PyramidPooling(2)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), (x,), train=False))
    variables = jax.tree.map_with_path(
        lambda path, leaf: (
            jnp.eye(2).reshape(leaf.shape)
            if path[-1].key == "kernel"
            else jnp.full(leaf.shape, float(path[-1].key in ("scale", "var")))
        ),
        variables,
    )
    visual, one, two, three, six = jax.jit(lambda v, x: module.apply(v, (x,), train=False))(variables, x)
    np.testing.assert_array_equal(visual, x)
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
    expanded = jnp.einsum("bhwk,kc->bhwc", inputs, weights)
    module = PartsConv(7, kernel, use_bias=True)
    parts = (first, Embedding(inputs, weights), second)
    whole = nn.Conv(7, (kernel, kernel), padding="SAME")
    concatenation = jnp.concatenate([first, expanded, second], -1)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), parts))
    assert shapes == jax.eval_shape(lambda: whole.init(jax.random.key(0), concatenation))
    variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)
    np.testing.assert_allclose(
        jax.jit(module.apply)(variables, parts), whole.apply(variables, concatenation), atol=1e-4
    )


def test_description_is_the_same_in_every_process():
    assert "0x" not in repr(PSPNet(**SMALL))
