"""IRNet's branches and DeepLabv3+ against PyTorch; which layers each branch reads."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from scarce_jax.models import irnet
from scarce_jax.models.deeplabv3plus import HEAD_PATTERN, DeepLabV3PlusConfig
from scarce_jax.models.irnet import DISPLACEMENT_PATTERN, EDGE_PATTERN, IRNet
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.models.weights import flat_shapes
from scarce_jax.optim import Group, assign_groups
from tests.models.golden import recipe
from tests.models.shapes import UNOPTIMISED, abstract, count

GOLDEN = np.load(pathlib.Path(__file__).with_name("golden") / "irnet.npz")


def assert_golden(result, name, index=0):
    expected = GOLDEN[f"{name}/{index}"]
    assert expected.std() > 0.1
    np.testing.assert_allclose(recipe.sample(result), expected, atol=1e-4)


def golden_variables(shapes, prefix=""):
    """The recipe's values of a net, whose paths in the twin begin with `prefix`."""
    named = {path.replace("/", f"/{prefix}", 1): shape for path, shape in flat_shapes(shapes).items()}
    values = recipe.variables(named)
    return traverse_util.unflatten_dict({path.replace(prefix, "", 1): x for path, x in values.items()}, sep="/")


def taps(layers):
    return [layers[name] for name in irnet.TAPS]


@pytest.fixture(scope="module")
def branches():
    """(parameters' shapes of the branches, their inputs' shapes) on a ResNet-50 at 512 x 512."""
    layers, _ = abstract(irnet.encoder(ResNetConfig(depth=50)), (1, 512, 512, 3))
    return jax.eval_shape(
        lambda *x: IRNet().init_with_output(jax.random.key(0), *x, train=False), *taps(layers)
    ), layers


def test_sizes_and_parameters_are_the_papers(branches):
    ((edge, displacement), variables), layers = branches
    assert edge.shape == (1, 128, 128) and displacement.shape == (1, 128, 128, 2)
    assert {name: x.shape[1:] for name, x in layers.items()} == {
        "stem": (128, 128, 64),
        "layer1": (128, 128, 256),
        "layer2": (64, 64, 512),
        "layer3": (32, 32, 1024),
        "layer4": (32, 32, 2048),
    }
    assert count(variables["params"]) == 1_394_529


def test_patterns_part_the_branches(branches):
    (_, variables), _ = branches
    groups = (Group(pattern=EDGE_PATTERN), Group(pattern=DISPLACEMENT_PATTERN))
    indices = jax.tree.leaves(assign_groups(groups, variables["params"]))
    sizes = [x.size for x in jax.tree.leaves(variables["params"])]
    assert [sum(s for s, i in zip(sizes, indices, strict=True) if i == k) for k in (0, 1)] == [125_409, 1_269_120]


def test_branches_are_those_of_pytorch():
    width = recipe.WIDTH["irnet"]
    encoder, net = irnet.encoder(ResNetConfig(depth=50, width=width)), IRNet(width)
    layers, trunk = abstract(encoder, recipe.EIGHTHS)
    shapes = jax.eval_shape(lambda *x: net.init(jax.random.key(0), *x, train=False), *taps(layers))
    trunk, branches = golden_variables(trunk, "backbone/"), golden_variables(shapes)
    run = jax.jit(
        lambda trunk, branches, x: net.apply(branches, *taps(encoder.apply(trunk, x, train=False)), train=False),
        compiler_options=UNOPTIMISED,
    )
    edge, displacement = run(trunk, branches, recipe.image(recipe.EIGHTHS))
    assert_golden(edge[..., None], "irnet", 0)
    assert_golden(displacement, "irnet", 1)


@pytest.mark.parametrize(("output_stride", "sides"), [(8, (44, 88)), (16, (22, 88))])
def test_deeplabv3plus_works_at_these_sizes(output_stride, sides):
    module = DeepLabV3PlusConfig(backbone=ResNetConfig(depth=18, width=8), output_stride=output_stride).build(21)
    shape = (2, 352, 352, 3)
    _, variables = abstract(module, shape)
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    _, state = jax.eval_shape(
        lambda v, x: module.apply(v, x, train=False, capture_intermediates=True), variables, image
    )
    layers = state["intermediates"]
    assert layers["aspp"]["__call__"][0].shape == (2, sides[0], sides[0], 32)
    assert layers["decoder_low"]["__call__"][0].shape == (2, sides[1], sides[1], 6)


def test_deeplabv3plus_is_that_of_pytorch():
    module = DeepLabV3PlusConfig(backbone=ResNetConfig(width=recipe.WIDTH["deeplabv3plus"], depth=50)).build(
        recipe.CLASSES
    )
    variables = golden_variables(abstract(module, recipe.EIGHTHS)[1])
    run = jax.jit(lambda v, x: module.apply(v, x, train=False)[0].full(), compiler_options=UNOPTIMISED)
    assert_golden(run(variables, recipe.image(recipe.EIGHTHS)), "deeplabv3plus")


def test_head_pattern_finds_all_but_the_resnet():
    params = abstract(DeepLabV3PlusConfig().build(21), (2, 33, 33, 3))[1]["params"]
    indices = jax.tree.leaves(assign_groups((Group(pattern=HEAD_PATTERN), Group()), params))
    sizes = [x.size for x in jax.tree.leaves(params)]
    assert sum(s for s, i in zip(sizes, indices, strict=True) if i == 1) == 23_508_032
