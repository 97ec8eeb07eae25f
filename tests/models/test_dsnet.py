"""DSNet: its parts and layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.models.dsnet import DSNet, DSNetEncoder, average_pool_2x2
from tests.models.shapes import abstract


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


def test_the_encoder_is_a_subtree_of_its_own():
    whole = abstract(DSNet(5, width=8), (1, 32, 32, 3))[1]
    alone = abstract(DSNetEncoder(8), (1, 32, 32, 3))[1]
    for kind in ("params", "batch_stats"):
        assert jax.tree.map(jnp.shape, whole[kind]["backbone"]) == jax.tree.map(jnp.shape, alone[kind])


def test_average_pool_rounds_up_and_averages_what_is_there():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    expected = [[(0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4, (4 + 9) / 2], [10.5, 12.5, 14]]
    np.testing.assert_allclose(average_pool_2x2(x)[0, :, :, 0], expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [(4, 6), (5, 6), (1, 3)])
def test_average_pool_and_its_gradient_equal_those_of_a_window_reduction(size, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *size, 3)), dtype)
    cotangent = jnp.asarray(rng.normal(size=(2, -(-size[0] // 2), -(-size[1] // 2), 3)), dtype)

    def by_reduction(x):
        x = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
        return nn.avg_pool(x, (2, 2), strides=(2, 2)).astype(dtype)

    for result, expected in zip(
        *([pool(x), *jax.vjp(pool, x)[1](cotangent)] for pool in (average_pool_2x2, by_reduction)), strict=True
    ):
        assert result.dtype == dtype
        tolerance = 1e-6 if dtype == jnp.float32 else 1e-2
        np.testing.assert_allclose(result.astype(jnp.float32), expected.astype(jnp.float32), atol=tolerance)


def test_a_width_without_whole_channels_is_an_error():
    with pytest.raises(ValueError, match="width of a DSNet is 6; expected a multiple of 4"):
        abstract(DSNet(5, width=6), (1, 32, 32, 3))
    with pytest.raises(ValueError, match="width of a DSNet is 3; expected an even number"):
        abstract(DSNetEncoder(3), (1, 32, 32, 3))
