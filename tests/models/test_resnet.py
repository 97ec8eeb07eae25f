"""ResNet: torchvision's layout and semantics, PSPNet's dilations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.resnet import ResNet, max_pool_3x3
from tests.models.shapes import abstract


def paths(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


@pytest.mark.parametrize(
    ("depth", "counts"),
    [(50, {1: 3 + 4, 2: 6, 4: 3}), (18, {1: 4 + 4, 2: 4, 4: 4})],
)
def test_every_3x3_convolution_of_layer3_and_layer4_is_dilated(depth, counts):
    module = ResNet(depth, width=8)
    _, variables = abstract(module, (1, 33, 33, 3))
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.float32)
    text = str(jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False))(variables, image))
    dilations = {}
    for match in re.finditer(r"conv_general_dilated\[(.*?)\n\s*\]", text, re.DOTALL):
        padding = re.search(r"padding=\(\((\d+), (\d+)\), \((\d+), (\d+)\)\)", match[1]).groups()
        dilation = int(re.search(r"rhs_dilation=\((\d+), \d+\)", match[1])[1])
        if padding not in {("0",) * 4, ("3",) * 4}:  # neither 1x1 nor the stem
            assert padding == (str(dilation),) * 4
            dilations[dilation] = dilations.get(dilation, 0) + 1
    assert dilations == counts


def test_parameter_names_follow_torchvision():
    _, variables = abstract(ResNet(50), (1, 33, 33, 3))
    names = set(paths(variables["params"]))
    # One unit per torchvision key, by the mapping in the module's docstring.
    expected = {"conv1/kernel", "bn1/scale", "bn1/bias"}
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            prefix = f"layer{layer}_block{block}"
            for index in (1, 2, 3):
                expected |= {
                    f"{prefix}/conv{index}/kernel",
                    f"{prefix}/bn{index}/scale",
                    f"{prefix}/bn{index}/bias",
                }
        prefix = f"layer{layer}_block0/downsample"
        expected |= {f"{prefix}_conv/kernel", f"{prefix}_bn/scale", f"{prefix}_bn/bias"}
    assert names == expected
    statistics = {re.sub("/(scale|bias)$", "", name) for name in names if "bn" in name}
    assert set(paths(variables["batch_stats"])) == {f"{name}/{kind}" for name in statistics for kind in ("mean", "var")}


def test_basic_blocks_have_a_downsample_only_where_channels_change():
    _, variables = abstract(ResNet(34), (1, 33, 33, 3))
    blocks = {name.split("/")[0] for name in paths(variables["params"]) if "downsample_conv" in name}
    assert blocks == {"layer2_block0", "layer3_block0", "layer4_block0"}


def test_stride_of_a_bottleneck_is_on_its_3x3():
    module = ResNet(50, width=8)
    _, variables = abstract(module, (1, 33, 33, 3))
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    _, state = jax.eval_shape(
        lambda v, x: module.apply(v, x, train=False, capture_intermediates=True), variables, image
    )
    block = state["intermediates"]["layer2_block0"]
    assert block["conv1"]["__call__"][0].shape[1] == 16
    assert block["conv2"]["__call__"][0].shape[1] == 8


@pytest.mark.parametrize("size", [(8, 9), (7, 6), (1, 2)])
def test_max_pool_equals_the_window_reduction(size):
    # All negative: a border padded with zeros would win.
    x = -1 - jnp.asarray(np.random.default_rng(0).random((2, *size, 3)), jnp.float32)

    def reference(x):
        windows = ((0, 0), (1, 1), (1, 1), (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), windows)

    (result, gradient), (expected, expected_gradient) = jax.jit(
        lambda x: [(f(x), jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x)) for f in (max_pool_3x3, reference)]
    )(x)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_unknown_depth_is_an_error():
    with pytest.raises(ValueError, match=r"depth is 19; expected one of \[18, 34, 50, 101\]"):
        abstract(ResNet(19), (1, 33, 33, 3))
