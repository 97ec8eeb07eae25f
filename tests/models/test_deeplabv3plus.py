"""What a coarse mask adds to a DeepLabv3+."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusDetailer, DeepLabV3PlusDetailerConfig
from scarce_jax.models.detailer import NearbyClasses
from scarce_jax.models.resnet import STRIDES, ResNet, ResNetConfig
from tests import tiny
from tests.models.shapes import abstract, integers, random_image, random_variables

CLASSES, SIZE, FINE = 3, (17, 24), (1, 32, 48, 3)


def net(kind, **fields):
    return kind(CLASSES, ResNet(18, 4, **STRIDES[16]), width=4, output_stride=16, dropout=0.0, **fields)


@pytest.mark.parametrize("nearby", [(), (1, 3)])
def test_with_a_mask_that_is_all_void_it_is_the_net_without_a_mask(nearby):
    detailer, plain = net(DeepLabV3PlusDetailer, embedding=7, nearby=nearby), net(DeepLabV3Plus)
    variables = random_variables(detailer, (1, *SIZE, 3), integers(1, *SIZE))
    params = variables["params"]
    params["coarse_embedding"]["bias"] = jnp.zeros_like(params["coarse_embedding"]["bias"])
    ids = np.random.default_rng(0).integers(0, CLASSES + 1, (1, *SIZE))
    image, mask = random_image(1, *SIZE, 3), jnp.asarray(np.where(ids == CLASSES, 255, ids), jnp.uint8)
    void, aux = detailer.apply(variables, image, jnp.full_like(mask, 255), train=False)
    found, _ = detailer.apply(variables, image, mask, train=False)
    # The weights of the embedding are the last ones of the decoder, after 3 and 16 channels of features.
    params["decoder"]["conv"]["kernel"] = params["decoder"]["conv"]["kernel"][:, :, :19]
    del params["coarse_embedding"]
    params.pop("nearby", None)
    expected, _ = plain.apply(variables, image, train=False)
    assert aux is None
    np.testing.assert_allclose(void.full(), expected.full(), atol=1e-4)
    assert np.abs(found.coarse - expected.coarse).max() > 0.01
    one_hot = np.asarray(mask)[..., None] == np.arange(CLASSES)
    np.testing.assert_allclose(found.full() - found.replace(mask=None).full(), one_hot, atol=1e-4)


def test_a_mask_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"coarse mask has shape \(1, 8, 8\); expected \(1, 17, 24\)"):
        abstract(net(DeepLabV3PlusDetailer), (1, *SIZE, 3), integers(1, 8, 8))


def test_the_classes_of_a_window_are_counted_without_its_void_part():
    # Two classes and void in a row of cells; the second cell is half of class 0, half void.
    fractions = jnp.asarray([[[[1, 0], [0.5, 0], [0, 0], [0, 1]]]])
    module = NearbyClasses((1, 3))
    variables = {"params": {"weights": jnp.asarray([2.0, 10.0])}}
    # Of windows of three cells, the part outside of the mask is void too.
    expected = [[2 + 10, 0], [2 + 10, 0], [10 / 3, 20 / 3], [0, 2 + 10]]
    np.testing.assert_allclose(module.apply(variables, fractions)[0, 0], expected, rtol=1e-6)
    weights = module.init(jax.random.key(0), fractions)["params"]["weights"]
    np.testing.assert_array_equal(weights, [1, 1])


def test_the_config_says_with_which_weights_windows_start():
    config = DeepLabV3PlusDetailerConfig(backbone=ResNetConfig(depth=18, width=4), nearby=(1, 3), nearby_weight=2.5)
    init = functools.partial(config.build(CLASSES).init, train=False)
    with tiny.little_optimised():
        variables = jax.jit(init)(jax.random.key(0), jnp.zeros((1, *SIZE, 3)), jnp.zeros((1, *SIZE), jnp.uint8))
    np.testing.assert_array_equal(variables["params"]["nearby"]["weights"], [2.5, 2.5])


@pytest.mark.parametrize("stride", [8, 16])
def test_the_geometry_of_caffe_puts_no_logits_outside_of_the_image(stride):
    for caffe in (False, True):
        backbone = ResNet(18, 4, caffe=caffe, **STRIDES[stride])
        (logits, _), _ = abstract(DeepLabV3Plus(CLASSES, backbone, 4, output_stride=stride), FINE)
        assert logits.coarse.shape == (1, 8, 12, CLASSES)
