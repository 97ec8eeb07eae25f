"""DeepLab-v2: geometry of the Caffe network, the sum of its classifiers, optimizer groups."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.deeplab import AFFINE_PATTERN, HEAD_PATTERN, DeepLabV2
from scarce_jax.models.resnet import ResNet, max_pool_3x3
from scarce_jax.optim import Group, assign_groups, parameter_paths
from tests.models.shapes import abstract, random_image, random_variables

SMALL = {"classes": 5, "backbone": ResNet(18, width=4)}


@pytest.mark.parametrize(("size", "eighth"), [((321, 321), (41, 41)), ((512, 1024), (65, 129))])
def test_features_of_the_caffe_geometry(size, eighth):
    layers, _ = abstract(ResNet(101, caffe=True), (1, *size, 3))
    assert layers["layer4"].shape[1:] == (*eighth, 2048)


def test_caffe_bottlenecks_stride_in_their_first_convolution():
    module = ResNet(50, width=4, caffe=True)
    shape = (1, 65, 65, 3)
    _, variables = abstract(module, shape)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    _, state = jax.eval_shape(lambda v, x: module.apply(v, x, train=False, capture_intermediates=True), variables, x)
    block = state["intermediates"]["layer2_block0"]
    sizes = {name: block[name]["__call__"][0].shape[1] for name in ("conv1", "conv2", "conv3", "downsample_conv")}
    assert sizes == dict.fromkeys(sizes, 9)  # of 17
    plain = abstract(ResNet(50, width=4), shape)[1]
    assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, variables)


@pytest.mark.parametrize(("side", "ceil", "expected"), [(4, True, 3), (4, False, 2), (5, True, 3), (5, False, 3)])
def test_pooling_rounds_up_with_ceil_only(side, ceil, expected):
    # Windows start at -1, 1, 3, ...; with `ceil` also at the last pixel of an even side. All values are negative.
    x = -1 - jnp.asarray(np.random.default_rng(0).random((1, side, side, 1)), jnp.float32)
    y = max_pool_3x3(x, ceil=ceil)
    assert y.shape[1:3] == (expected, expected)
    slow = [
        [x[0, max(i, 0) : i + 3, max(j, 0) : j + 3, 0].max() for j in range(-1, 2 * expected - 1, 2)]
        for i in range(-1, 2 * expected - 1, 2)
    ]
    np.testing.assert_array_equal(y[0, :, :, 0], slow)


def test_logits_are_the_sum_of_four_branches():
    # With all but one branch at zero the branches' logits add up to those of all.
    module = DeepLabV2(**SMALL)
    x = random_image(1, 17, 17, 3)
    variables = random_variables(module, x.shape)
    names = [f"aspp_rate{rate}" for rate in (6, 12, 18, 24)]
    apply = jax.jit(lambda variables: module.apply(variables, x, train=False)[0].full())
    alone = []
    for branch in names:
        zeroed = {
            name: jax.tree.map(lambda v, keep=name == branch or name == "backbone": v * keep, tree)
            for name, tree in variables["params"].items()
        }
        alone.append(apply({**variables, "params": zeroed}))
        assert np.abs(alone[-1]).max() > 1e-3
    np.testing.assert_allclose(apply(variables), sum(alone), atol=1e-4)


def test_classifiers_start_at_a_hundredth():
    shape = (1, 9, 9, 3)
    keys = [name for name in abstract(DeepLabV2(**SMALL), shape)[1]["params"] if re.search(HEAD_PATTERN, name)]
    assert sorted(keys) == ["aspp_rate12", "aspp_rate18", "aspp_rate24", "aspp_rate6"]
    module = DeepLabV2(21, ResNet(18, width=8))
    kernel = jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros(shape), train=False)["params"]["aspp_rate6"])()
    np.testing.assert_allclose(kernel["kernel"].std(), 0.01, rtol=0.05)
    assert not np.any(kernel["bias"])


def test_patterns_find_the_frozen_affine_and_the_head():
    params = abstract(DeepLabV2(19, ResNet(101)), (1, 33, 33, 3))[1]["params"]
    groups = (Group(pattern=AFFINE_PATTERN, lr=0.0), Group(pattern=HEAD_PATTERN, lr=10.0), Group())
    group = jax.tree.leaves(assign_groups(groups, params))
    sizes = [x.size for x in jax.tree.leaves(params)]
    assert sum(size for size, i in zip(sizes, group, strict=True) if i == 0) == 105_344
    assert sum(size for size, i in zip(sizes, group, strict=True) if i == 1) == 4 * (9 * 2048 * 19 + 19)
    rest = [path for path, i in zip(parameter_paths(params), group, strict=True) if i == 2]
    assert all(path.endswith("conv/kernel") or re.search(r"conv\d/kernel$", path) for path in rest)
