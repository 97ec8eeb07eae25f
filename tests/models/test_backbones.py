"""Nets on any backbone: what they read of it, what of it is frozen, and which kinds there are."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.errors import InputError
from scarce_jax.models.backbones import Backbone
from scarce_jax.models.deeplab import DeepLabV2, DeepLabV2Config
from scarce_jax.models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from scarce_jax.models.detailer import Detailer, DetailerConfig
from scarce_jax.models.dinov2 import DINOv2Config
from scarce_jax.models.normalisation import renormalise
from scarce_jax.models.pspnet import PSPNet, PSPNetConfig
from scarce_jax.models.resnet import ResNet, ResNetConfig
from scarce_jax.models.tracing import Tracing, tracing
from scarce_jax.models.vgg import VGGConfig
from scarce_jax.ops.logits import full_size
from scarce_jax.optim import parameter_paths
from scarce_jax.ranges import check, options, split
from tests.models.shapes import UNOPTIMISED, abstract, integers, random_image, random_variables

SMALL = {
    "resnet": ResNetConfig(depth=18, width=4),
    "vgg16": VGGConfig(width=4, batch_norm=True, convolutions=(1, 1, 1, 1, 1)),
    "dinov2": DINOv2Config(),
}
"""Kind -> a backbone of it, as small as they get."""

NETS = {
    "detailer": functools.partial(DetailerConfig, embedding=8),  # a PSPNet
    "deeplabv2": DeepLabV2Config,
    "deeplabv3plus": DeepLabV3PlusConfig,
}


CHANNELS = {"first": 6, "second": 10, "third": 14, "last": 18}


class Levels(nn.Module):
    """Levels whose channels tell them apart, at a half, a quarter, a quarter and a seventh of the size."""

    @nn.compact
    def __call__(self, image, *, train):
        levels = zip(CHANNELS.items(), (2, 4, 4, 7), strict=True)
        return {name: nn.Conv(count, (3, 3), stride, name=name)(image) for (name, count), stride in levels}


def shapes_of(module, size):
    """Paths of the parameters of a net with five classes -> shapes; and the shapes of its logits in training."""
    inputs = [(2, *size, 3)] + ([integers(2, *size)] if isinstance(module, Detailer) else [])
    outputs, variables = abstract(module, *inputs, train=True)
    sizes = [None if x is None else jax.eval_shape(full_size, x).shape for x in outputs]
    params = variables["params"]
    return dict(zip(parameter_paths(params), [x.shape for x in jax.tree.leaves(params)], strict=True)), sizes


@pytest.mark.parametrize(
    ("module", "reads"),
    [
        (PSPNet(5, Levels(), 8), {"ppm/bin1/conv": "last", "aux_block/conv": "third"}),
        (Detailer(5, Levels(), 8, embedding=8), {"ppm/bin1/conv": "last", "aux_block/conv": "third"}),
        (DeepLabV2(5, Levels()), {"aspp_rate6": "last"}),
        (DeepLabV3Plus(5, Levels(), 8, low_level="second"), {"aspp/point/conv": "last", "decoder_low/conv": "second"}),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_nets_read_levels_by_their_order(module, reads):
    params, (logits, aux_logits) = shapes_of(module, (33, 41))
    assert logits == (2, 33, 41, 5) and aux_logits == (logits if isinstance(module, PSPNet) else None)
    assert {path.split("/")[1] for path in params if path.startswith("backbone/")} == set(CHANNELS)
    assert {path: params[f"{path}/kernel"][2] for path in reads} == {path: CHANNELS[k] for path, k in reads.items()}


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("name", NETS)
def test_nets_stand_on_every_kind(name, kind):
    net = NETS[name](backbone=SMALL[kind])
    params, (logits, aux_logits) = shapes_of(net.build(5), (70, 80))
    assert logits == (2, 70, 80, 5) and aux_logits == (logits if name == "detailer" else None)
    own = {f"backbone/{path}" for path in parameter_paths(variables_of(kind)["params"])}
    assert {path for path in params if path.startswith("backbone/")} == own
    tags, variables = abstract(net.classifier(7), (2, 70, 80, 3))
    assert tags.shape == (2, 7) and {p for p in parameter_paths(variables["params"]) if "backbone/" in p} == own


def test_every_kind_is_tried():
    assert {split(option)[0] for option in options(Backbone)} == {type(config) for config in SMALL.values()}


@pytest.mark.parametrize("kind", SMALL)
def test_the_low_level_is_the_last_of_a_quarter_or_the_first(kind):
    levels, _ = abstract(SMALL[kind].build(8), (1, 112, 112, 3))
    quarter = [name for name in names_of(kind) if levels[name].shape[1:3] == (28, 28)]
    assert SMALL[kind].low_level == (quarter[-1] if quarter else names_of(kind)[0])


@pytest.mark.parametrize(("stride", "side"), [(8, 12), (16, 6), (32, 3)])
def test_the_stride_of_a_resnet_is_that_of_the_net(stride, side):
    net = PSPNetConfig(backbone=SMALL["resnet"], stride=stride)
    assert abstract(net.trunk(), (1, 96, 96, 3))[0]["layer4"].shape[1:3] == (side, side)
    # `dilate_first` is what tells the trunks of PSPNet and DeepLabv3+ apart.
    assert PSPNetConfig().trunk() == ResNet(101) != dataclasses.replace(PSPNetConfig(), stride=stride * 2 % 48).trunk()


def test_settings_of_a_resnet_reach_its_module():
    settings = {"normalisation": "caffe", "frozen": 2, "frozen_statistics": True}
    trunk = DeepLabV2Config(backbone=ResNetConfig(depth=50, width=8, geometry="caffe", **settings)).trunk(jnp.bfloat16)
    assert trunk == ResNet(50, 8, caffe=True, dtype=jnp.bfloat16, **settings)
    assert DeepLabV2Config().trunk() == ResNet(101, caffe=True)
    assert DeepLabV3PlusConfig().trunk() == ResNet(50, dilate_first=False)


def test_widths_that_the_decoder_cannot_divide_are_refused():
    check(DeepLabV3PlusConfig(backbone=ResNetConfig(width=8)))
    expected = "^--net.backbone.width 6: expected a multiple of 4, for the decoder's channels"
    with pytest.raises(InputError, match=expected):
        check(DeepLabV3PlusConfig(backbone=ResNetConfig(width=6)), "net")


IMAGE = (2, 33, 33, 3)

NORMALISED = ("resnet", "vgg16")
"""Kinds with batch normalisation. DINOv2 has none, and tests of its own."""


@functools.cache
def variables_of(kind):
    return random_variables(SMALL[kind].build(8), IMAGE)


@functools.cache
def names_of(kind):
    """Names of the levels in their order, which results of `jit` and `eval_shape` have lost."""
    names = []
    module, image = SMALL[kind].build(8), jax.ShapeDtypeStruct(IMAGE, jnp.float32)
    jax.eval_shape(lambda v, x: names.extend(module.apply(v, x, train=False)), variables_of(kind), image)
    return names


@functools.cache
def trained(kind, remat=False, **changes):
    """(gradient by path, batch statistics, levels) of a backbone in training, and its levels in evaluation."""
    module, image = dataclasses.replace(SMALL[kind], **changes).build(8), random_image(*IMAGE)

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def run(variables, image):
        def loss(params):
            with tracing(Tracing(remat=remat)):
                options = {"train": True, "mutable": ["batch_stats"]}
                levels, new = module.apply({**variables, "params": params}, image, **options)
            weighted = [(x * jnp.cos(jnp.arange(x.size).reshape(x.shape))).mean() for x in levels.values()]
            return sum(weighted), (new["batch_stats"], levels)

        gradient, (statistics, levels) = jax.grad(loss, has_aux=True)(variables["params"])
        return gradient, statistics, levels, module.apply(variables, image, train=False)

    gradient, *rest = run(variables_of(kind), image)
    return dict(zip(parameter_paths(gradient), jax.tree.leaves(gradient), strict=True)), *rest


def changed(kind, statistics):
    """The paths of the batch statistics that training changed."""
    old = variables_of(kind)["batch_stats"]
    pairs = zip(parameter_paths(old), jax.tree.leaves(old), jax.tree.leaves(statistics), strict=True)
    return {path for path, before, after in pairs if not np.array_equal(before, after)}


@pytest.mark.parametrize("frozen", [3, 5])
@pytest.mark.parametrize("kind", NORMALISED)
def test_frozen_parts_have_no_gradient_and_keep_their_statistics(kind, frozen):
    gradient, statistics, levels, evaluated = trained(kind, frozen=frozen)
    fixed = re.compile(dataclasses.replace(SMALL[kind], frozen=frozen).frozen_pattern)
    # The bias of a convolution before batch normalisation has none anyway.
    gradient = {path: value for path, value in gradient.items() if not re.search(r"conv.*/bias$", path)}
    still = {path for path, value in gradient.items() if not np.any(value)}
    assert still == {path for path in gradient if fixed.search(f"backbone/{path}")}
    assert changed(kind, statistics) == {
        path for path in parameter_paths(variables_of(kind)["batch_stats"]) if not fixed.search(f"backbone/{path}")
    }
    *_, plain = trained(kind)
    for index, name in enumerate(names_of(kind)):
        np.testing.assert_array_equal(evaluated[name], plain[name])
        close = np.allclose(levels[name], evaluated[name], rtol=1e-4, atol=1e-5)
        assert close == (index < frozen), name


@pytest.mark.parametrize("kind", NORMALISED)
def test_frozen_statistics_stay_and_all_parameters_are_trained(kind):
    gradient, statistics, levels, evaluated = trained(kind, frozen_statistics=True)
    assert not changed(kind, statistics) and all(map(np.any, gradient.values()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), levels, evaluated)


@pytest.mark.parametrize("kind", NORMALISED)
def test_features_computed_again_give_the_same_gradient(kind):
    plain, again = (trained(kind, remat, frozen=3)[0] for remat in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), plain, again)


@pytest.mark.parametrize("kind", NORMALISED)
def test_a_backbone_converts_its_images(kind):
    image = random_image(*IMAGE)
    settings, other = SMALL[kind], dataclasses.replace(SMALL[kind], normalisation="caffe")
    run = jax.jit(
        lambda v, x: [
            c.build(8).apply(v, y, train=False) for c, y in ((other, x), (settings, renormalise(x, "caffe")))
        ],
        compiler_options=UNOPTIMISED,
    )
    converted, expected = run(variables_of(kind), image)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), converted, expected)
    assert not np.allclose(converted["layer4"], trained(kind)[3]["layer4"], rtol=1e-2)
