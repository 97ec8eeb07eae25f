"""The CAM classifier: maps whose means are the logits, strides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.cam_vgg import HEAD_PATTERN, CamClassifier
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.optim import Group, assign_groups, parameter_paths
from tests.models import vgg_nets
from tests.models.golden import recipe
from tests.models.shapes import abstract, random_image


@pytest.mark.parametrize(("stride", "sides"), [(16, {224: 14, 321: 20}), (8, {224: 28, 321: 40})])
def test_maps_are_at_the_stride(stride, sides):
    module = CamClassifier(20, VGGConfig().build(stride))
    for side, expected in sides.items():
        _, variables = abstract(module, (2, side, side, 3))
        image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
        maps = jax.eval_shape(lambda v, x: module.apply(v, x, method="class_activation_maps"), variables, image)
        assert maps.shape == (2, expected, expected, 20) and maps.dtype == jnp.float32


@pytest.mark.parametrize(("case", "stride"), [("cam", 16), ("cam8", 8)])
def test_logits_and_maps_are_those_of_pytorch_and_means_are_logits(case, stride, tmp_path):
    width = recipe.WIDTH["cam"]
    module = CamClassifier(recipe.CLASSES, VGGConfig(width=width).build(stride), width)
    variables = vgg_nets.variables(module, case, tmp_path)
    logits, maps = vgg_nets.compiled(
        lambda v, x: (module.apply(v, x, train=False), module.apply(v, x, method="class_activation_maps"))
    )(variables, recipe.image())
    vgg_nets.assert_golden(logits[:, None, None], case, 0)
    vgg_nets.assert_golden(maps, case, 1)
    bias = variables["params"]["classifier"]["bias"]
    assert np.abs(bias).max() > 0.1
    np.testing.assert_allclose(maps.mean((1, 2)) + bias, logits, atol=1e-5)


def test_dropout_is_of_averaged_features():
    # All but the last layer is as in inference, so with all features dropped the bias is left.
    module = CamClassifier(3, VGGConfig(width=2).build(16), 2, dropout=1.0)
    _, variables = abstract(module, (1, 16, 16, 3))
    variables = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), variables)
    run = vgg_nets.compiled(lambda v, x: [module.apply(v, x, train=t, rngs={"dropout": key}) for t in (True, False)])
    key = jax.random.key(0)
    dropped, whole = run(variables, random_image(1, 16, 16, 3))
    np.testing.assert_array_equal(dropped, np.ones((1, 3)))
    assert np.abs(whole - 1).min() > 1


def test_pattern_finds_the_layers_that_vgg_has_not():
    params = abstract(CamClassifier(20, VGGConfig().build(16)), (1, 32, 32, 3))[1]["params"]
    indices = jax.tree.leaves(assign_groups((Group(pattern=HEAD_PATTERN, lr=10), Group()), params))
    head = {path for path, i in zip(parameter_paths(params), indices, strict=True) if i == 0}
    assert head == {f"{layer}/{leaf}" for layer in ("conv6", "classifier") for leaf in ("kernel", "bias")}
