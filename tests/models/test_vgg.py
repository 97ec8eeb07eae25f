"""VGG-16: names, pools, dilations, frozen groups."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.normalisation import CAFFE_MEAN
from scarce_jax.models.vgg import POOLS, Pool, VGG16Trunk, VGGConfig
from scarce_jax.ops.augment import MEAN, STD
from scarce_jax.optim import parameter_paths
from tests.models.shapes import UNOPTIMISED, abstract, random_image, random_variables

NAMES = {f"{group}_{index}" for group, count in enumerate((2, 2, 3, 3, 3), 1) for index in range(1, count + 1)}


@pytest.mark.parametrize("batch_norm", [False, True])
def test_parameter_names(batch_norm):
    _, variables = abstract(VGG16Trunk(4, batch_norm), (1, 32, 32, 3))
    kinds = ("conv", "bn") if batch_norm else ("conv",)
    assert set(variables["params"]) == {f"{kind}{name}" for kind in kinds for name in NAMES}
    assert all(set(variables["params"][f"conv{name}"]) == {"kernel", "bias"} for name in NAMES)
    assert set(variables.get("batch_stats", ())) == ({f"bn{name}" for name in NAMES} if batch_norm else set())


def test_only_conv5_is_dilated_and_padded_by_as_much():
    module = VGG16Trunk(width=4, dilation=2)
    _, variables = abstract(module, (1, 64, 64, 3))
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    text = str(jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False))(variables, image))
    dilations = []
    for match in re.finditer(r"conv_general_dilated\[(.*?)\n\s*\]", text, re.DOTALL):
        padding = re.search(r"padding=\(\((\d+), (\d+)\), \((\d+), (\d+)\)\)", match[1]).groups()
        dilations.append(int(re.search(r"rhs_dilation=\((\d+), \d+\)", match[1])[1]))
        assert padding == (str(dilations[-1]),) * 4
    assert dilations == [1] * 10 + [2] * 3


@pytest.mark.parametrize("pool", [Pool(2, 2), Pool(3, 2, 1), Pool(3, 1, 1)])
def test_pool_equals_the_window_reduction(pool):
    # All negative: a border padded with zeros would win.
    x = -1 - jnp.asarray(np.random.default_rng(0).random((2, 7, 10, 3)), jnp.float32)

    def reference(x):
        around = ((0, 0), (pool.padding,) * 2, (pool.padding,) * 2, (0, 0))
        windows, strides = (1, pool.window, pool.window, 1), (1, pool.stride, pool.stride, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, windows, strides, around)

    (result, gradient), (expected, expected_gradient) = jax.jit(
        lambda x: [(f(x), jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x)) for f in (pool, reference)]
    )(x)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_pools_with_switches_pool_alike():
    x = random_image(1, 4, 6, 2)
    pooled, switches = Pool(2, 2).with_switches(x)
    np.testing.assert_array_equal(pooled, Pool(2, 2)(x))
    for (b, i, j, c), place in np.ndenumerate(np.asarray(switches)):
        assert x[b, 2 * i + place // 2, 2 * j + place % 2, c] == pooled[b, i, j, c]


def test_switches_are_those_of_the_pools_and_change_no_feature():
    module = VGGConfig(width=2, convolutions=(1,) * 5).build(32)
    image = random_image(1, 64, 96, 3)
    variables = random_variables(module, image.shape)

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def run(variables, image):
        switched, switches = module.apply(variables, image, train=False, method="with_switches")
        return module.apply(variables, image, train=False), switched, switches

    plain, switched, switches = run(variables, image)
    shapes = [(1, 64 >> i, 96 >> i, c) for i, c in enumerate((2, 4, 8, 16, 16), start=1)]
    assert list(switched) == ["layer1", "layer2", "layer3", "layer4", "layer5"]
    assert [x.shape for x in switched.values()] == [x.shape for x in switches] == shapes
    assert all(x.dtype == jnp.uint8 and x.max() == 3 for x in switches)
    for name, features in plain.items():
        np.testing.assert_array_equal(switched[name], features)
        assert np.std(features) > 0.01


def test_unfit_pools_and_images_are_errors():
    with pytest.raises(ValueError, match="pools of a VGG-16 are 4; expected 5"):
        abstract(VGG16Trunk(4, pools=POOLS[:4]), (1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"Pool\(.*\) has no switches; expected stride = window and no padding"):
        Pool(3, 2, 1).with_switches(jnp.zeros((1, 6, 6, 1)))
    with pytest.raises(ValueError, match=r"stride of a VGG-16 is 4; expected one of \[8, 16, 32\]"):
        VGGConfig().build(4)
    with pytest.raises(ValueError, match=r"image of 40 x 31 is too small .* after conv5 finds 2 x 1; give a larger"):
        abstract(VGG16Trunk(4), (1, 40, 31, 3))


@pytest.mark.parametrize("numbers", [(1, 1, 1, 1), (2, 2, 3, 3, 0)])
def test_numbers_of_convolutions_that_make_no_vgg_are_errors(numbers):
    with pytest.raises(ValueError, match="convolutions are .*; expected five numbers of at least 1"):
        abstract(VGG16Trunk(4, convolutions=numbers), (1, 32, 32, 3))


@pytest.mark.parametrize(("stride", "sides"), [(8, (28, 28, 28)), (16, (28, 14, 14)), (32, (28, 14, 7))])
def test_strides_of_a_built_backbone(stride, sides):
    levels, _ = abstract(VGGConfig(width=4).build(stride), (1, 224, 224, 3))
    assert [x.shape[1:] for x in levels.values()] == [
        (112, 112, 4), (56, 56, 8), *((side, side, c) for side, c in zip(sides, (16, 32, 32), strict=True))
    ]  # fmt: skip


def trained(config):
    """(gradient, whether each statistic changed) of a step in which every level is read."""
    module = config.build(8)
    image = random_image(2, 32, 32, 3)
    variables = random_variables(module, image.shape)

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def step(params):
        def loss(params):
            levels, new = module.apply({**variables, "params": params}, image, train=True, mutable=["batch_stats"])
            weighted = [(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).mean() for y in levels.values()]
            return sum(weighted), new

        return jax.grad(loss, has_aux=True)(params)

    gradient, new = step(variables["params"])
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), new["batch_stats"], variables["batch_stats"])
    return gradient, changed


@pytest.mark.parametrize("frozen", [0, 2, 5])
def test_frozen_groups_get_no_gradient_and_keep_their_statistics(frozen):
    config = VGGConfig(width=2, batch_norm=True, convolutions=(1, 2, 1, 1, 1), frozen=frozen)
    gradient, changed = trained(config)
    for name, layer in changed.items():
        assert set(layer.values()) == {int(name[2]) > frozen}, name
    for name, layer in gradient.items():
        assert np.any(layer["scale" if name.startswith("bn") else "kernel"]) == (int(name[-3]) > frozen), name
    paths = parameter_paths({"backbone": gradient, "conv1_1": 0, "head": {"backbone": 0}})
    found = [path for path in paths if config.frozen_pattern and re.search(config.frozen_pattern, path)]
    assert found == [path for path in paths if path.startswith("backbone/") and int(path.split("_")[0][-1]) <= frozen]


def test_frozen_statistics_stay_while_all_parameters_learn():
    gradient, changed = trained(VGGConfig(width=2, batch_norm=True, convolutions=(1,) * 5, frozen_statistics=True))
    assert not any(jax.tree.leaves(changed))
    # A bias before running averages counts, unlike one before the statistics of the batch.
    assert all(np.any(x) for x in jax.tree.leaves(gradient))


def test_images_are_converted_into_the_normalisation_of_the_weights():
    plain = VGGConfig(width=2, convolutions=(1,) * 5).build(32)
    caffe = VGGConfig(width=2, convolutions=(1,) * 5, normalisation="caffe").build(32)
    image = np.asarray(random_image(1, 32, 32, 3))
    variables = random_variables(plain, image.shape)
    expected = plain.apply(variables, 255 * (image * np.float32(STD) + MEAN) - np.float32(CAFFE_MEAN), train=False)
    params = dict(variables["params"])
    params["conv1_1"] = {**params["conv1_1"], "kernel": params["conv1_1"]["kernel"][:, :, ::-1]}  # It reads B, G, R.
    for name, features in caffe.apply({"params": params}, image, train=False).items():
        np.testing.assert_allclose(features, expected[name], rtol=1e-3, atol=1e-2)
        assert np.std(features) > 0.1
