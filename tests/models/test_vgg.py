"""VGG-16: names, pools and dilations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.vgg import POOLS, Pool, VGG16Trunk
from tests.models.shapes import abstract, random_image

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
        lambda x: [(f(x), jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x)) for f in (lambda x: pool(x)[0], reference)]
    )(x)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_pools_that_keep_switches_pool_alike():
    x = random_image(1, 4, 6, 2)
    plain, nothing = Pool(2, 2)(x)
    pooled, switches = Pool(2, 2, switches=True)(x)
    np.testing.assert_array_equal(pooled, plain)
    assert nothing is None
    for (b, i, j, c), place in np.ndenumerate(np.asarray(switches)):
        assert x[b, 2 * i + place // 2, 2 * j + place % 2, c] == plain[b, i, j, c]


def test_switches_are_those_of_the_pools_that_keep_them():
    pools = (Pool(2, 2, switches=True), Pool(2, 2), Pool(2, 2, switches=True), None, None)
    (_, switches), _ = abstract(VGG16Trunk(width=4, pools=pools), (2, 32, 48, 3))
    assert [None if s is None else (s.shape, s.dtype) for s in switches] == [
        ((2, 16, 24, 4), jnp.uint8),
        None,
        ((2, 4, 6, 16), jnp.uint8),
        None,
        None,
    ]


def test_unfit_pools_and_images_are_errors():
    with pytest.raises(ValueError, match="pools of a VGG-16 are 4; expected 5"):
        abstract(VGG16Trunk(4, pools=POOLS[:4]), (1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"Pool\(.*\) keeps switches; expected stride = window and no padding"):
        Pool(3, 2, 1, switches=True)
    with pytest.raises(ValueError, match=r"image of 40 x 31 is too small .* after conv5 finds 2 x 1; give a larger"):
        abstract(VGG16Trunk(4), (1, 40, 31, 3))


@pytest.mark.parametrize("numbers", [(1, 1, 1, 1), (2, 2, 3, 3, 0)])
def test_numbers_of_convolutions_that_make_no_vgg_are_errors(numbers):
    with pytest.raises(ValueError, match="convolutions are .*; expected five numbers of at least 1"):
        abstract(VGG16Trunk(4, convolutions=numbers), (1, 32, 32, 3))
