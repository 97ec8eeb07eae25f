"""ResNet: torchvision's layout and semantics, PSPNet's dilations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.resnet import ResNet, batch_norm, convolution, max_pool_3x3


def abstract(module, size=(1, 33, 33, 3)):
    image = jax.ShapeDtypeStruct(size, jnp.float32)
    return jax.eval_shape(lambda key, x: module.init_with_output(key, x, train=False), jax.random.key(0), image)


def paths(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


@pytest.mark.parametrize(
    ("depth", "deep_stem", "parameters"),
    [
        # torchvision's counts less the classifier's.
        (18, False, 11_176_512),
        (34, False, 21_284_672),
        (50, False, 23_508_032),
        (50, True, 23_631_808),
        (101, False, 42_500_160),
    ],
)
def test_parameter_count(depth, deep_stem, parameters):
    _, variables = abstract(ResNet(depth, deep_stem=deep_stem))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == parameters


@pytest.mark.parametrize(("size", "eighth"), [((340, 340), (43, 43)), ((850, 713), (107, 90))])
def test_layers_keep_an_eighth_of_the_input_rounded_up(size, eighth):
    layers, _ = abstract(ResNet(50), (1, *size, 3))
    quarter = tuple(-(-side // 4) for side in size)
    expected = {"layer1": (*quarter, 256), "layer2": (*eighth, 512)}
    expected |= {"layer3": (*eighth, 1024), "layer4": (*eighth, 2048)}
    assert {name: x.shape[1:] for name, x in layers.items()} == expected


def test_width_scales_every_layer():
    layers, variables = abstract(ResNet(18, width=8))
    assert [x.shape[-1] for x in layers.values()] == [8, 16, 32, 64]
    assert paths(variables["params"])["layer4_block1/conv2/kernel"].shape == (3, 3, 64, 64)


def test_strides_and_dilations_of_the_undilated_network():
    layers, _ = abstract(ResNet(50, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)), (1, 224, 224, 3))
    assert [x.shape[1] for x in layers.values()] == [56, 28, 14, 7]


@pytest.mark.parametrize(
    ("depth", "counts"),
    [(50, {1: 3 + 4, 2: 6, 4: 3}), (18, {1: 4 + 4, 2: 4, 4: 4})],
)
def test_every_3x3_convolution_of_layer3_and_layer4_is_dilated(depth, counts):
    module = ResNet(depth, width=8)
    _, variables = abstract(module)
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.float32)
    text = str(jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False))(variables, image))
    found = {}
    for match in re.finditer(r"conv_general_dilated\[(.*?)\n\s*\]", text, re.DOTALL):
        padding = re.search(r"padding=\(\((\d+), (\d+)\), \((\d+), (\d+)\)\)", match[1]).groups()
        dilation = int(re.search(r"rhs_dilation=\((\d+), \d+\)", match[1])[1])
        if padding not in {("0",) * 4, ("3",) * 4}:  # neither 1x1 nor the stem
            assert padding == (str(dilation),) * 4
            found[dilation] = found.get(dilation, 0) + 1
    assert found == counts


def test_parameter_names_follow_torchvision():
    _, variables = abstract(ResNet(50))
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
    _, variables = abstract(ResNet(34))
    found = {name.split("/")[0] for name in paths(variables["params"]) if "downsample_conv" in name}
    assert found == {"layer2_block0", "layer3_block0", "layer4_block0"}


def test_stride_of_a_bottleneck_is_on_its_3x3():
    module = ResNet(50, width=8)
    _, variables = abstract(module)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    _, state = jax.eval_shape(
        lambda v, x: module.apply(v, x, train=False, capture_intermediates=True), variables, image
    )
    block = state["intermediates"]["layer2_block0"]
    assert block["conv1"]["__call__"][0].shape[1] == 16
    assert block["conv2"]["__call__"][0].shape[1] == 8


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (7, 2, 1), (3, 1, 2), (1, 2, 1)])
def test_convolution_pads_both_sides_alike(kernel, stride, dilation):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(1, 8, 10, 2)), rng.normal(size=(kernel, kernel, 2, 3))
    result = convolution(3, kernel, stride=stride, dilation=dilation).apply(
        {"params": {"kernel": jnp.asarray(weights, jnp.float32)}}, jnp.asarray(x, jnp.float32)
    )
    pad, reach = dilation * (kernel - 1) // 2, dilation * (kernel - 1) + 1
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    expected = [
        [
            np.einsum("ijc,ijcf->f", padded[0, i : i + reach : dilation, j : j + reach : dilation], weights)
            for j in range(0, padded.shape[2] - reach + 1, stride)
        ]
        for i in range(0, padded.shape[1] - reach + 1, stride)
    ]
    np.testing.assert_allclose(result[0], expected, atol=1e-5)


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


def test_batch_norm_uses_torch_momentum_and_epsilon():
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (4, 5, 6, 2)), jnp.float32)
    module = batch_norm(train=True)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    y, updated = jax.jit(lambda v, x: module.apply(v, x, mutable=["batch_stats"]))(variables, x)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-4)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * variance, rtol=1e-4)


def test_initial_values_are_he_normal_over_the_outputs():
    variables = jax.jit(convolution(64, 3).init)(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.03)


def test_bfloat16_computation_keeps_float32_variables():
    layers, variables = abstract(ResNet(50, width=8, dtype=jnp.bfloat16))
    assert {x.dtype for x in layers.values()} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_unknown_depth_is_an_error():
    with pytest.raises(ValueError, match=r"depth is 19; expected one of \[18, 34, 50, 101\]"):
        abstract(ResNet(19))


def test_description_is_the_same_in_every_process():
    assert "0x" not in repr(ResNet(18, width=8, dtype=jnp.bfloat16))
