"""DeepLab-LargeFOV: Caffe's geometry, the grid of features, optimizer groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.largefov import HEAD_PATTERN, LargeFOVConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.optim import Schedule, assign_groups, caffe, parameter_paths
from tests.models import vgg_nets
from tests.models.golden import recipe
from tests.models.shapes import abstract, random_image, random_variables


def narrow(width, classes):
    return LargeFOVConfig(backbone=VGGConfig(width=width)).build(classes)


GOLDEN_NET = narrow(recipe.WIDTH["largefov"], recipe.CLASSES)


def test_forward_pass_is_that_of_the_caffe_definition(tmp_path):
    variables = vgg_nets.variables(GOLDEN_NET, "largefov", tmp_path, recipe.EIGHTHS)
    logits, _ = vgg_nets.forward(GOLDEN_NET)(variables, recipe.image(recipe.EIGHTHS))
    vgg_nets.assert_golden(logits, "largefov")


RESNET = LargeFOVConfig(backbone=ResNetConfig(depth=18, width=4)).build(recipe.CLASSES)


@pytest.mark.parametrize("net", [GOLDEN_NET, RESNET], ids=["vgg16", "resnet"])
def test_features_lie_at_every_eighth_pixel(net):
    # On sides 8 * n + 1 such a grid is its own mirror image, and so are the logits of symmetric kernels.
    variables = random_variables(net, recipe.EIGHTHS)
    variables = jax.tree.map(lambda x: x + x[::-1, ::-1] if x.ndim == 4 else x, variables)
    image = recipe.image(recipe.EIGHTHS)
    run = vgg_nets.forward(net)
    logits, _ = run(variables, image)
    mirrored, _ = run(variables, np.ascontiguousarray(image[:, ::-1, ::-1]))
    assert np.std(logits) > 1e-2
    np.testing.assert_allclose(mirrored, logits[:, ::-1, ::-1], atol=1e-4 * np.abs(logits).max())


def test_dropout_is_drawn_in_training_only():
    module, x = narrow(2, 3), random_image(1, 17, 17, 3)
    variables = random_variables(module, x.shape)

    def run(key, train):
        return module.apply(variables, x, train=train, rngs={"dropout": key})[0]

    keys = jax.random.split(jax.random.key(0), 2)
    first, second, plain, same = vgg_nets.compiled(
        lambda keys: [run(keys[i], train) for train in (True, False) for i in (0, 1)]
    )(keys)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(plain, same)


def test_patterns_find_the_classifier_and_the_biases():
    params = abstract(LargeFOVConfig().build(21), (1, 33, 33, 3))[1]["params"]
    groups = caffe(1e-3, Schedule(), head=HEAD_PATTERN).groups
    assert [(group.lr, group.weight_decay) for group in groups] == [(20, 0), (10, 1), (2, 0), (1, 1)]
    indices = jax.tree.leaves(assign_groups(groups, params))
    group_of = dict(zip(parameter_paths(params), indices, strict=True))
    assert [path for path, i in group_of.items() if i == 0] == ["fc8/bias"]
    assert [path for path, i in group_of.items() if i == 1] == ["fc8/kernel"]
    assert sum(i == 2 for i in indices) == sum(i == 3 for i in indices) == 15


def test_classifier_starts_at_a_hundredth():
    module = narrow(8, 21)

    @vgg_nets.compiled
    def draw():
        return module.init(jax.random.key(0), jnp.zeros((1, 1, 1, 3)), train=False)["params"]["fc8"]

    head = draw()
    np.testing.assert_allclose(head["kernel"].std(), 0.01, rtol=0.05)
    assert not np.any(head["bias"])
