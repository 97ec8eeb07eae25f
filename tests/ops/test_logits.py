"""Logits that are not yet at full size: all their pixels, and labels in the order of phases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax.ops.logits import Phases, Resized, full_size
from scarce_jax.ops.resize import resize_bilinear


def test_resized_logits_are_the_resize_plus_one_at_the_mask():
    rng = np.random.default_rng(0)
    coarse = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.bfloat16)
    mask = jnp.asarray(rng.integers(0, 6, (2, 7, 9)) % 6 * 51, jnp.uint8)  # 0 is a class, the others are not
    logits = Resized(coarse, size=(7, 9), align_corners=False, mask=mask)
    plain = resize_bilinear(coarse.astype(jnp.float32), (7, 9), align_corners=False)
    assert logits.full().dtype == jnp.float32 and logits.shape == plain.shape
    np.testing.assert_array_equal(logits.replace(mask=None).full(), plain)
    np.testing.assert_allclose(logits.full() - plain, np.asarray(mask)[..., None] == np.arange(5), atol=1e-6)


@pytest.mark.parametrize(("size", "offset"), [((7, 10), 2), ((12, 12), 0), ((1, 2), 3)])
def test_phases_put_labels_where_their_logits_are(size, offset):
    # The logit of each pixel is its own number, and so is its label.
    numbers = jnp.arange(2.0 * size[0] * size[1]).reshape(2, *size)
    empty = Phases(jnp.zeros((2, 3, 3, 16)), size=size, stride=4, offset=offset)
    arranged = empty.arrange(numbers, -1)
    assert arranged.shape == (2, 3, 3, 16)
    assert (np.asarray(arranged) >= 0).sum() == numbers.size
    np.testing.assert_array_equal(empty.replace(phases=arranged).full()[..., 0], numbers)


def test_split_keeps_the_classes_of_a_pixel_together():
    image = jnp.arange(2 * 4 * 4 * 3.0).reshape(2, 4, 4, 3)  # one place of stride 4
    logits = Phases(image.reshape(2, 1, 1, 48), size=(4, 4), stride=4, offset=0)
    np.testing.assert_array_equal(logits.full(), image)
    np.testing.assert_array_equal(logits.split()[:, 0, 0], image.reshape(2, 16, 3))


def test_arrays_are_at_full_size_and_small_logits_pass_through_jit():
    x = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
    assert full_size(x).dtype == jnp.float32
    logits = jax.jit(lambda x: Resized(x, size=(4, 4), align_corners=True))(x)
    np.testing.assert_array_equal(full_size(logits), np.ones((1, 4, 4, 3)))
