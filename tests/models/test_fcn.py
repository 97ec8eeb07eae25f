"""FCN: its head, patches that reach beyond the image, and what a coarse mask adds."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.losses import cross_entropy
from scarce_jax.models.dinov2 import DINOv2Config
from scarce_jax.models.fcn import FCN, FCNConfig, FCNDetailer, FCNDetailerConfig
from scarce_jax.models.resnet import ResNetConfig
from scarce_jax.ops.logits import Resized
from scarce_jax.ops.resize import resize_bilinear
from tests.models.shapes import abstract, integers, random_image, random_variables

PATCH, CLASSES = 4, 3


class Patches(nn.Module):
    """The smallest backbone of patches: image -> {"first": [B, h, w, 3], "last": [B, h, w, 6]}."""

    @nn.compact
    def __call__(self, image, *, train):
        ends = ((0, -side % PATCH) for side in image.shape[1:3])
        image = jnp.pad(image, ((0, 0), *ends, (0, 0)))
        return {
            name: nn.Conv(features, (PATCH,) * 2, PATCH, padding="VALID", name=name)(image)
            for name, features in (("first", 3), ("last", 6))
        }


def fcn(kind=FCN, **fields):
    return kind(CLASSES, Patches(), **{"patch": PATCH, "layers": 0, "dropout": 0.0, **fields})


def coarse_mask(*shape):
    ids = np.random.default_rng(2).integers(0, CLASSES + 1, shape)
    return jnp.asarray(np.where(ids == CLASSES, 255, ids), jnp.uint8)


def test_the_linear_head_is_batch_normalisation_and_one_matrix():
    variables, image = random_variables(fcn(), (1, 8, 12, 3)), random_image(1, 8, 12, 3)
    logits, aux = fcn().apply(variables, image, train=False)
    last = Patches().apply({"params": variables["params"]["backbone"]}, image, train=False)["last"]
    bn, mean = variables["params"]["head_bn"], variables["batch_stats"]["head_bn"]
    x = (last - mean["mean"]) / np.sqrt(mean["var"] + 1e-5) * bn["scale"] + bn["bias"]
    head = variables["params"]["classifier"]
    np.testing.assert_allclose(logits.coarse, x @ head["kernel"][0, 0] + head["bias"], atol=1e-5)
    assert aux is None and not logits.align_corners and logits.shape == (1, 8, 12, CLASSES)


@pytest.mark.parametrize("kind", [FCN, FCNDetailer])
def test_logits_of_patches_stay_in_place_where_these_reach_beyond_the_image(kind):
    """Those of an image are those of the same image padded with zeros, cut."""
    net = fcn(kind)
    image, mask = random_image(1, 7, 10, 3), coarse_mask(1, 7, 10)
    masks, padded_masks = (mask,), (jnp.pad(mask, ((0, 0), (0, 1), (0, 2)), constant_values=255),)
    if kind is FCN:
        masks = padded_masks = ()
    variables = random_variables(net, (1, 8, 12, 3), *(integers(1, 8, 12) for _ in masks))
    ours, _ = net.apply(variables, image, *masks, train=False)
    padded = jnp.pad(image, ((0, 0), (0, 1), (0, 2), (0, 0)))
    theirs, _ = net.apply(variables, padded, *padded_masks, train=False)
    assert isinstance(theirs, Resized) and ours.shape == (1, 7, 10, CLASSES)
    np.testing.assert_allclose(ours, theirs.full()[:, :7, :10], atol=1e-5)
    labels = coarse_mask(1, 7, 10)
    padded_labels = jnp.pad(labels, ((0, 0), (0, 1), (0, 2)), constant_values=255)
    np.testing.assert_allclose(cross_entropy(ours, labels), cross_entropy(theirs, padded_labels), rtol=1e-5)


def test_features_of_convolutions_have_their_corners_on_those_of_the_image():
    net = fcn(patch=1)
    variables, image = random_variables(net, (1, 8, 12, 3)), random_image(1, 8, 12, 3)
    logits, _ = net.apply(variables, image, train=False)
    np.testing.assert_allclose(logits.full(), resize_bilinear(logits.coarse, (8, 12), align_corners=True), atol=1e-6)


@pytest.mark.parametrize("layers", [0, 1])
def test_without_a_coarse_mask_it_is_the_fcn_of_the_same_weights(layers):
    net, plain = fcn(FCNDetailer, layers=layers, channels=5, embedding=7), fcn(layers=layers, channels=5)
    variables = random_variables(net, (1, 8, 12, 3), integers(1, 8, 12))
    params = variables["params"]
    embedding = params.pop("coarse_embedding")
    params["coarse_embedding"] = {**embedding, "bias": jnp.zeros_like(embedding["bias"])}
    image, mask = random_image(1, 8, 12, 3), coarse_mask(1, 8, 12)
    void, _ = net.apply(variables, image, jnp.full_like(mask, 255), train=False)
    found, _ = net.apply(variables, image, mask, train=False)
    # The weights of the embedding are the last ones of the layer that reads it.
    reader = params["head_block0"]["conv"] if layers else params["classifier"]
    reader["kernel"] = reader["kernel"][:, :, :6]
    del params["coarse_embedding"]
    expected, _ = plain.apply(variables, image, train=False)
    np.testing.assert_allclose(void.full(), expected.full(), atol=1e-5)
    one_hot = np.asarray(mask)[..., None] == np.arange(CLASSES)
    # The skip is at full resolution; what the embedding adds is smooth.
    assert np.abs(found.coarse - expected.coarse).max() > 0.05
    np.testing.assert_allclose(found.full() - found.replace(mask=None).full(), one_hot, atol=1e-5)


def test_a_mask_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"coarse mask has shape \(1, 8, 8\); expected \(1, 8, 12\)"):
        abstract(fcn(FCNDetailer), (1, 8, 12, 3), integers(1, 8, 8))


@pytest.mark.parametrize(
    ("config", "stride"),
    [
        (FCNConfig(backbone=DINOv2Config(), layers=0), 14),
        (FCNConfig(backbone=ResNetConfig(depth=18, width=4), stride=16, channels=8), 16),
        (FCNDetailerConfig(backbone=ResNetConfig(depth=18, width=4), layers=1, channels=8, embedding=4), 8),
    ],
)
def test_configs_build_their_net_and_a_tag_classifier(config, stride):
    inputs = [(2, 112, 224, 3)] + ([integers(2, 112, 224)] if isinstance(config, FCNDetailerConfig) else [])
    (logits, _), _ = abstract(config.build(CLASSES), *inputs)
    assert logits.coarse.shape == (2, 112 // stride, 224 // stride, CLASSES)
    assert logits.align_corners == (config.backbone.patch == 1)
    assert abstract(config.classifier(5), inputs[0])[0].shape == (2, 5)


def test_dropout_is_of_training_alone():
    net = fcn(dropout=0.5)
    variables, image = random_variables(net, (2, 8, 12, 3)), random_image(2, 8, 12, 3)
    train = functools.partial(net.apply, variables, image, train=True, mutable=["batch_stats"])
    first, second = (train(rngs={"dropout": jax.random.key(seed)})[0][0].coarse for seed in (0, 1))
    assert np.abs(first - second).max() > 0.05
    # Without random keys dropout would raise.
    net.apply(variables, image, train=False)
