"""Convolutions with batch normalisation: folded, with a bias, in groups, and computed again in the backward pass."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scarce_jax.models.batch_norm import batch_norm
from scarce_jax.models.deconvolution import Deconvolution
from scarce_jax.models.dsnet import DSNetEncoder
from scarce_jax.models.layers import Convolution, ConvUnit
from scarce_jax.models.pspnet import ConvBlock, Embedding
from scarce_jax.models.resnet import ResNet
from scarce_jax.models.tracing import Tracing, tracing
from scarce_jax.models.vgg import VGG16Trunk
from tests.models.shapes import random_image, random_variables, segmentation_inputs


class Layers(nn.Module):
    """A convolution with a bias, batch normalisation, shortcut and ReLU; in one call or apart."""

    apart: bool
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        bn = batch_norm(train=train, dtype=self.dtype, name="bn")
        layer = Convolution(x.shape[-1], 3, use_bias=True, dtype=self.dtype, name="conv")
        x = x.astype(self.dtype)
        return bn(layer(x), x, relu=True) if self.apart else layer(x, bn, x, relu=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
def test_folded_into_the_kernel_it_predicts_the_same(dtype, tolerance):
    x = random_image(2, 9, 8, 4)
    folded, apart = (Layers(way, dtype) for way in (False, True))
    variables = {
        "params": {
            "conv": {"kernel": random_image(3, 3, 4, 4) / 6, "bias": random_image(4)},
            "bn": {"scale": 1 + random_image(4) / 4, "bias": random_image(4)},
        },
        "batch_stats": {"bn": {"mean": random_image(4), "var": 0.5 + random_image(4) ** 2}},
    }
    ours, expected = (module.apply(variables, x, False) for module in (folded, apart))
    assert ours.dtype == dtype
    ours, expected = (np.asarray(y, np.float32) for y in (ours, expected))
    np.testing.assert_allclose(ours, expected, atol=tolerance * np.abs(expected).max())

    # A training step may hold a net that is not trained, or one with frozen statistics that is.
    def gradient(module):
        def loss(params):
            y = module.apply({**variables, "params": params}, x, False)
            return (y.astype(jnp.float32) ** 2).sum()

        return jax.grad(loss)(variables["params"])

    for a, b in zip(*(jax.tree.leaves(gradient(module)) for module in (folded, apart)), strict=True):
        np.testing.assert_allclose(a, b, atol=10 * tolerance * np.abs(b).max())


def test_a_bias_before_batch_statistics_only_moves_the_running_mean():
    x = random_image(2, 9, 8, 4)
    modules = [Layers(way) for way in (False, True)]
    variables = jax.tree.map(lambda leaf: leaf + 0.1, modules[0].init(jax.random.key(0), x, True))
    (ours, new), (expected, theirs) = (module.apply(variables, x, True, mutable=["batch_stats"]) for module in modules)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_embedding_is_folded_too():
    rng = np.random.default_rng(0)
    parts = random_image(2, 6, 5, 3), Embedding(random_image(2, 6, 5, 2), random_image(2, 4))
    block = ConvBlock(6, 3)
    variables = block.init(jax.random.key(0), parts, train=False)
    draw = {"mean": rng.normal(size=6), "var": rng.uniform(0.5, 2, 6)}
    variables = {**variables, "batch_stats": {"bn": {k: jnp.asarray(v, jnp.float32) for k, v in draw.items()}}}
    x = jnp.concatenate((parts[0], jnp.einsum("bhwk,kc->bhwc", *parts[1])), -1)
    y = nn.Conv(6, (3, 3), padding="SAME", use_bias=False).apply({"params": variables["params"]["conv"]}, x)
    expected = np.maximum((y - draw["mean"]) / np.sqrt(draw["var"] + 1e-5), 0)
    np.testing.assert_allclose(block.apply(variables, parts, train=False), expected, atol=1e-5)


NETS = {
    "resnet18": (ResNet(18, width=2), (2, 32, 32, 3)),
    "resnet50": (ResNet(50, width=2), (2, 32, 32, 3)),
    "vgg": (VGG16Trunk(2, True, convolutions=(1, 1, 2, 1, 1)), (2, 64, 64, 3)),
    "dsnet": (DSNetEncoder(4, (1, 1, 1, 1)), (2, 32, 32, 3)),
}


def check_remat(module, inputs):
    """Gradients and statistics are equal, and fewer values are kept for the backward pass."""
    variables = random_variables(module, *inputs)
    results, kept = [], []
    for remat in (False, True):

        def loss(params, remat=remat):
            with tracing(Tracing(remat=remat)):
                y, new = module.apply({**variables, "params": params}, *inputs, train=True, mutable=["batch_stats"])
            floating = [leaf for leaf in jax.tree.leaves(y) if leaf.dtype == jnp.float32]
            return sum((leaf * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape))).mean() for leaf in floating), new

        results.append(jax.jit(jax.grad(loss, has_aux=True))(variables["params"]))
        pull = jax.eval_shape(lambda params, loss=loss: jax.vjp(loss, params, has_aux=True)[1], variables["params"])
        features = (leaf for leaf in jax.tree.leaves(pull) if leaf.ndim == 4 and len(leaf) == len(inputs[0]))
        kept.append(sum(leaf.size for leaf in features))
    assert kept[1] < 0.9 * kept[0]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3 * max(1e-3, np.abs(b).max()))


@pytest.mark.parametrize("name", NETS)
def test_blocks_computed_again_change_no_gradient_and_no_statistics(name):
    module, shape = NETS[name]
    check_remat(module, [random_image(*shape)])


class Decoder(nn.Module):
    """Deconvolutions that are called as other nets are, with switches of zeros."""

    @nn.compact
    def __call__(self, x, train):
        _, _, *switches = segmentation_inputs(2, 32)
        switches = tuple(jnp.zeros(getattr(switch, "shape", switch), jnp.uint8) for switch in switches)
        return Deconvolution(2, (2, 2, 2, 2, 2), name="deconvolution")(x, switches, train=train)


def test_deconvolutions_computed_again():
    check_remat(Decoder(), [random_image(2, 1, 1, 16)])


def forward(groups, devices):
    """Features of a layer in training on so many devices, and whether its program exchanges anything."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    unit = ConvUnit(4, 3)
    x = random_image(8, 6, 6, 3)
    variables = random_variables(unit, x)

    def features(variables, x):
        with tracing(Tracing(statistics_groups=groups)):
            return unit.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    split = NamedSharding(mesh, PartitionSpec("data"))
    compiled = jax.jit(features, in_shardings=(None, split), out_shardings=split).lower(variables, x).compile()
    return np.asarray(compiled(variables, jax.device_put(x, split))), "all-reduce" in compiled.as_text()


def test_groups_on_their_own_devices_exchange_no_statistics():
    (one, _), (four, exchanged) = (forward(4, devices) for devices in (1, 4))
    np.testing.assert_allclose(one, four, atol=1e-5)
    assert not exchanged
    (one, _), (four, exchanged) = (forward(1, devices) for devices in (1, 4))
    np.testing.assert_allclose(one, four, atol=1e-5)
    assert exchanged


def test_groups_that_do_not_divide_the_batch_are_an_error():
    with pytest.raises(ValueError, match="batch is 8; expected a multiple of 3, the groups of batch statistics"):
        forward(3, 1)
