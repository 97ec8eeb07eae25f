"""What a coarse mask adds to a DeepLabv3+."""

import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusDetailer
from scarce_jax.models.resnet import STRIDES, ResNet
from tests.models.shapes import abstract, integers, random_image, random_variables

CLASSES, SIZE = 3, (17, 24)


def net(kind, **fields):
    return kind(CLASSES, ResNet(18, 4, **STRIDES[16]), width=4, output_stride=16, dropout=0.0, **fields)


def test_with_a_mask_that_is_all_void_it_is_the_net_without_a_mask():
    detailer, plain = net(DeepLabV3PlusDetailer, embedding=7), net(DeepLabV3Plus)
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
    expected, _ = plain.apply(variables, image, train=False)
    assert aux is None
    np.testing.assert_allclose(void.full(), expected.full(), atol=1e-4)
    assert np.abs(found.coarse - expected.coarse).max() > 0.01
    one_hot = np.asarray(mask)[..., None] == np.arange(CLASSES)
    np.testing.assert_allclose(found.full() - found.replace(mask=None).full(), one_hot, atol=1e-4)


def test_a_mask_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"coarse mask has shape \(1, 8, 8\); expected \(1, 17, 24\)"):
        abstract(net(DeepLabV3PlusDetailer), (1, *SIZE, 3), integers(1, 8, 8))
