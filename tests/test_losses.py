"""Losses against direct numpy formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import losses

cross_entropy = jax.jit(losses.cross_entropy)
pixel_cross_entropy = jax.jit(losses.pixel_cross_entropy)
masked_mean = jax.jit(losses.masked_mean)
sigmoid_cross_entropy = jax.jit(losses.sigmoid_cross_entropy, static_argnames="background")


def slow_cross_entropy(logits, labels, weights=None):
    total = count = 0.0
    for row, label in zip(logits.reshape(-1, logits.shape[-1]).astype(np.float64), labels.reshape(-1), strict=True):
        if label != 255:
            weight = 1.0 if weights is None else weights[label]
            total += weight * (np.log(np.exp(row).sum()) - row[label])
            count += weight
    return total / count


def example(seed=0, shape=(2, 7, 5), classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes + 1, shape).astype(np.uint8)
    return 3 * rng.normal(size=(*shape, classes)).astype(np.float32), np.where(labels == classes, 255, labels)


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 7.0]])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_cross_entropy_equals_the_slow_formula(weights, dtype):
    logits, labels = example()
    result = cross_entropy(jnp.asarray(logits), jnp.asarray(labels, dtype), class_weights=weights)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, slow_cross_entropy(logits, labels, weights), rtol=1e-6)


def test_zero_logits_cost_the_logarithm_of_the_number_of_classes():
    labels = jnp.array([[0, 18, 255]], jnp.uint8)
    np.testing.assert_allclose(cross_entropy(jnp.zeros((1, 3, 19)), labels), 2.944439, atol=1e-6)


def test_ignored_pixels_have_no_gradient_and_the_others_softmax_minus_one_hot():
    logits, labels = example()
    gradient = jax.jit(jax.grad(cross_entropy))(jnp.asarray(logits), jnp.asarray(labels))
    valid = labels != 255
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = (softmax - (labels[..., None] == np.arange(4))) / valid.sum()
    np.testing.assert_allclose(gradient, np.where(valid[..., None], expected, 0), atol=1e-7)


def test_all_pixels_ignored_is_zero_with_a_zero_gradient():
    labels = jnp.full((1, 4, 4), 255, jnp.uint8)
    for weights in (None, jnp.ones(3)):
        loss, gradient = jax.jit(jax.value_and_grad(cross_entropy))(
            jnp.ones((1, 4, 4, 3)), labels, class_weights=weights
        )
        assert float(loss) == 0.0
        np.testing.assert_array_equal(gradient, np.zeros((1, 4, 4, 3)))


def test_the_mean_is_over_the_pixels_of_the_whole_batch():
    logits, labels = example()
    labels[0] = 255
    labels[0, 0, 0] = 1
    both = cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    parts = [cross_entropy(jnp.asarray(logits[i]), jnp.asarray(labels[i])) for i in range(2)]
    counts = (labels != 255).sum((1, 2))
    np.testing.assert_allclose(both, np.average(parts, weights=counts), rtol=1e-6)
    assert abs(both - np.mean(parts)) > 1e-3


def test_large_logits_are_stable():
    logits = jnp.array([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]])
    loss, gradient = jax.jit(jax.value_and_grad(cross_entropy))(logits, jnp.array([0, 0]))
    np.testing.assert_allclose(loss, 1e4)
    assert np.isfinite(gradient).all()


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.zeros((64, 64, 3), jnp.bfloat16)
    loss = cross_entropy(logits, jnp.zeros((64, 64), jnp.uint8))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)


def test_a_label_of_no_class_makes_the_loss_nan():
    assert np.isnan(cross_entropy(jnp.zeros((2, 3)), jnp.array([0, 3], jnp.uint8)))
    np.testing.assert_array_equal(
        np.isnan(pixel_cross_entropy(jnp.zeros((3, 3)), jnp.array([0, 254, 255]))), [False, True, False]
    )


def test_shapes_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match=r"labels have shape \(3, 1\)"):
        cross_entropy(jnp.zeros((3, 4)), jnp.zeros((3, 1), jnp.uint8))
    with pytest.raises(ValueError, match=r"class_weights have shape \(3,\)"):
        cross_entropy(jnp.zeros((3, 4)), jnp.zeros(3, jnp.uint8), class_weights=[1, 2, 3])
    with pytest.raises(ValueError, match="tags"):
        sigmoid_cross_entropy(jnp.zeros((3, 4)), jnp.zeros((3, 6)), background=0)


def test_masked_mean_ignores_what_has_no_weight():
    values = jnp.array([1.0, jnp.nan, 3.0, jnp.inf])
    np.testing.assert_allclose(masked_mean(values, jnp.array([True, False, True, False])), 2.0)
    np.testing.assert_allclose(masked_mean(values, jnp.array([3.0, 0.0, 1.0, 0.0])), 1.5)
    assert float(masked_mean(values, jnp.zeros(4))) == 0.0
    gradient = jax.jit(jax.grad(masked_mean))(values, jnp.array([True, False, True, False]))
    np.testing.assert_allclose(gradient, [0.5, 0, 0.5, 0])


def test_sigmoid_cross_entropy_equals_the_slow_formula():
    rng = np.random.default_rng(0)
    logits, tags = 2 * rng.normal(size=(3, 5)), rng.integers(0, 2, (3, 5))
    p = 1 / (1 + np.exp(-logits))
    slow = -(tags * np.log(p) + (1 - tags) * np.log(1 - p))
    logits, labels = jnp.asarray(logits, jnp.float32), jnp.asarray(tags, jnp.uint8)
    np.testing.assert_allclose(sigmoid_cross_entropy(logits, labels), slow.mean(), rtol=1e-5)
    kept = [0, 1, 3, 4]
    expected = slow[:, kept].mean()
    np.testing.assert_allclose(sigmoid_cross_entropy(logits, labels, background=2), expected, rtol=1e-5)
    # The same classes from a network that has no output for the background.
    shorter = logits[:, jnp.array(kept)]
    np.testing.assert_allclose(sigmoid_cross_entropy(shorter, labels, background=2), expected, rtol=1e-5)


def test_sigmoid_cross_entropy_at_zero_and_at_large_logits():
    np.testing.assert_allclose(sigmoid_cross_entropy(jnp.zeros((2, 3)), jnp.eye(2, 3)), 0.693147, atol=1e-6)
    np.testing.assert_allclose(sigmoid_cross_entropy(jnp.array([[500.0, -500.0]]), jnp.array([[0, 0]])), 250.0)
