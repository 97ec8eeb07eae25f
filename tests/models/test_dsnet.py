"""DSNet: the paper's size, its taps, and any input size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models import dsnet
from scarce_jax.models.blocks import TransposedConv, Upsampler
from scarce_jax.models.dsnet import DSNet, DSNetEncoder, average_pool_2x2
from tests.models.shapes import abstract, gradients_reach_every_parameter, parameters, random_image


@pytest.mark.parametrize(("classes", "count"), [(19, 2_107_027), (11, 2_057_867)])
def test_parameter_count(classes, count):
    assert parameters(DSNet(classes), (1, 64, 64, 3)) == count


def test_parameters_of_each_part():
    params = abstract(DSNet(19), (1, 64, 64, 3))[1]["params"]
    encoder = params["backbone"]

    def count(tree, prefix):
        return sum(x.size for name in tree if name.startswith(prefix) for x in jax.tree.leaves(tree[name]))

    # Convolutions without bias k*k*C*F, and 2F of their batch normalisation.
    assert count(encoder, "stem") == 9 * 3 * 32 + 64
    assert count(encoder, "initial") == (32 * 16 + 32) + (9 * 32 * 48 + 96) + (9 * 48 * 48 + 96) == 35_296
    assert count(encoder, "block1") == 536_896
    assert count(encoder, "transition") == sum(c * c + 2 * c for c in (128, 224, 416)) == 241_152
    # Three, six and three bottlenecks: 1x1 C -> 128, 3x3 128 -> 32, and C grows by 32.
    widths = [128, 160, 192] + list(range(224, 416, 32)) + [416, 448, 480]
    expected = sum(c * 128 + 256 + 9 * 128 * 32 + 64 for c in widths)
    assert sum(count(encoder, f"block{b}") for b in (2, 3, 4)) == expected == 913_152
    assert count(params, "decoder") == 262_848
    assert count(params, "classifier") == 64 * 96 * 19 + 19 == 116_755


def test_taps_and_logits_at_the_papers_size():
    taps, _ = abstract(DSNetEncoder(), (2, 512, 1024, 3))
    expected = {"block1": (128, 256, 128), "block2": (64, 128, 224), "block3": (32, 64, 416), "block4": (16, 32, 512)}
    assert {name: x.shape[1:] for name, x in taps.items()} == expected
    (logits, aux_logits), _ = abstract(DSNet(19), (2, 512, 1024, 3))
    assert logits.shape == (2, 512, 1024, 19) and logits.dtype == jnp.float32
    assert aux_logits is None


@pytest.mark.parametrize("size", [(360, 480), (33, 47), (1, 2)])
def test_any_size_gives_logits_of_that_size(size):
    (logits, _), _ = abstract(DSNet(11, width=4), (1, *size, 3), train=True)
    assert logits.shape == (1, *size, 11)
    taps, _ = abstract(DSNetEncoder(4), (1, *size, 3))
    assert [x.shape[1:3] for x in taps.values()] == [tuple(-(-n // s) for n in size) for s in (4, 8, 16, 32)]


def test_width_scales_every_layer_but_the_classes():
    narrow, wide = (abstract(DSNet(5, width=w), (1, 32, 32, 3))[1]["params"] for w in (8, 32))

    def compare(path, a, b):
        names = [key.key for key in path]
        expected = [n // 4 for n in b.shape]
        if names[-1] == "kernel":
            expected[:2] = b.shape[:2]
        if "stem" in names and names[-1] == "kernel":
            expected[2] = 3
        if names[0] == "classifier":
            expected[-1] = 5
        assert list(a.shape) == expected, names

    jax.tree.map_with_path(compare, narrow, wide)


def test_the_encoder_is_a_subtree_of_its_own():
    whole = abstract(DSNet(5, width=8), (1, 32, 32, 3))[1]
    alone = abstract(DSNetEncoder(8), (1, 32, 32, 3))[1]
    for kind in ("params", "batch_stats"):
        assert jax.tree.map(jnp.shape, whole[kind]["backbone"]) == jax.tree.map(jnp.shape, alone[kind])


def test_training_reaches_everything(monkeypatch):
    monkeypatch.setattr(dsnet, "UNITS", (1, 1, 1, 1))  # compiles in a fraction of the time
    gradients_reach_every_parameter(DSNet(3, width=4), random_image(2, 37, 33, 3))


def test_upsampling_keeps_blocks_in_place():
    # Nearest-neighbour kernel: each pixel of a quarter becomes 4 x 4 pixels, and the result is cropped.
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    kernel = jnp.zeros((8, 8, 1, 1)).at[2:6, 2:6].set(1)
    variables = {"params": {"deconv": {"kernel": kernel, "bias": jnp.zeros(1)}}}
    y = Upsampler(1).apply(variables, x, (7, 9))
    np.testing.assert_array_equal(y[0, :, :, 0], np.kron(np.arange(6.0).reshape(2, 3), np.ones((4, 4)))[:7, :9])


def test_transposed_convolution_has_torchs_variance_per_output_and_a_bias():
    module = TransposedConv(64, 8, 4, 2)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 1, 96)))["params"]
    # Uniform within 1 / sqrt(inputs), of which a pixel has 96 * (8 / 4)**2.
    bound = (96 * 4) ** -0.5
    assert 0.99 * bound < np.abs(params["kernel"]).max() <= bound
    np.testing.assert_allclose(params["kernel"].std(), bound / np.sqrt(3), rtol=0.01)
    y = module.apply({"params": {**params, "bias": jnp.arange(64.0)}}, jnp.zeros((1, 2, 2, 96)))
    np.testing.assert_array_equal(y, jnp.broadcast_to(jnp.arange(64.0), (1, 8, 8, 64)))


def test_average_pool_rounds_up_and_averages_what_is_there():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    expected = [[(0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4, (4 + 9) / 2], [10.5, 12.5, 14]]
    np.testing.assert_allclose(average_pool_2x2(x)[0, :, :, 0], expected)


def test_bfloat16_computes_float32_logits_from_float32_variables():
    (logits, _), variables = abstract(DSNet(5, width=4, dtype=jnp.bfloat16), (1, 32, 32, 3), train=True)
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    taps, _ = abstract(DSNetEncoder(4, dtype=jnp.bfloat16), (1, 32, 32, 3))
    assert {x.dtype for x in taps.values()} == {jnp.dtype(jnp.bfloat16)}


def test_a_width_without_whole_channels_is_an_error():
    with pytest.raises(ValueError, match="width of a DSNet is 6; expected a multiple of 4"):
        abstract(DSNet(5, width=6), (1, 32, 32, 3))
    with pytest.raises(ValueError, match="width of a DSNet is 3; expected an even number"):
        abstract(DSNetEncoder(3), (1, 32, 32, 3))


def test_description_is_the_same_in_every_process():
    assert "0x" not in repr(DSNet(5, dtype=jnp.bfloat16))
