"""Losses against direct numpy formulas and values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import losses

cross_entropy = jax.jit(losses.cross_entropy)
pixel_cross_entropy = jax.jit(losses.pixel_cross_entropy)
masked_mean = jax.jit(losses.masked_mean)
auxiliary_loss = jax.jit(losses.auxiliary_loss, static_argnames=("scope", "normalise"))
multi_label_cross_entropy = jax.jit(losses.multi_label_cross_entropy, static_argnames="background")
binary_cross_entropy = jax.jit(losses.binary_cross_entropy)
inverse_log_weights = jax.jit(losses.inverse_log_weights)
correctness_counts = jax.jit(losses.correctness_counts, static_argnames="classes")
correctness_balance = jax.jit(losses.correctness_balance)
confident_labels = jax.jit(losses.confident_labels)
masked_cross_entropy = jax.jit(losses.masked_cross_entropy)


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
    # 4096 terms: float32 may be off by 2e-5 in the order of some versions of XLA; bfloat16 is by far more than 1e-3.
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-4)


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
        multi_label_cross_entropy(jnp.zeros((3, 4)), jnp.zeros((3, 6)), background=0)


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
    np.testing.assert_allclose(multi_label_cross_entropy(logits, labels), slow.mean(), rtol=1e-5)
    foreground = [0, 1, 3, 4]
    expected = slow[:, foreground].mean()
    np.testing.assert_allclose(multi_label_cross_entropy(logits, labels, background=2), expected, rtol=1e-5)
    # The same classes from a network that has no output for the background.
    shorter = logits[:, jnp.array(foreground)]
    np.testing.assert_allclose(multi_label_cross_entropy(shorter, labels, background=2), expected, rtol=1e-5)


def test_sigmoid_cross_entropy_at_zero_and_at_large_logits():
    np.testing.assert_allclose(multi_label_cross_entropy(jnp.zeros((2, 3)), jnp.eye(2, 3)), 0.693147, atol=1e-6)
    np.testing.assert_allclose(multi_label_cross_entropy(jnp.array([[500.0, -500.0]]), jnp.array([[0, 0]])), 250.0)


def test_class_weights_of_the_paper():
    # 1 / ln(c + p): 1 / ln 1.04, 1 / ln 2.04, 1 / ln 1.29, 1 / ln 1.79; 1 / ln 1.1, 1 / ln 2.1.
    weights = inverse_log_weights(jnp.array([0, 1, 0.25, 0.75]), 1.04)
    np.testing.assert_allclose(weights, [25.496732, 1.402623, 3.927079, 1.717577], rtol=1e-5)
    # The last two: road and bicycle of Cityscapes, whose published weights are 2.81492 and 10.138096.
    weights = inverse_log_weights(jnp.array([0, 1, 0.32654, 0.00367]), 1.1)
    np.testing.assert_allclose(weights[:3], [10.492059, 1.347823, 2.81492], rtol=1e-5)
    np.testing.assert_allclose(weights[3], 10.138096, rtol=1e-4)


def test_weighted_cross_entropy_is_divided_by_the_sum_of_weights():
    # Probabilities 3/4 and 1/4 of the first class, both of weight w0 = 1 / ln 1.6, and 1/2 of the second, weight
    # w1 = 1 / ln 1.2: (w0 * (ln(4/3) + ln 4) + w1 * ln 2) / (2 * w0 + w1).
    logits = jnp.log(jnp.array([[3.0, 1.0], [1.0, 3.0], [1.0, 1.0], [7.0, 1.0]]))
    weights = inverse_log_weights(jnp.array([0.5, 0.1]), 1.1)
    loss = cross_entropy(logits, jnp.array([0, 0, 1, 255], jnp.uint8), class_weights=weights)
    w0, w1 = 1 / np.log(1.6), 1 / np.log(1.2)
    np.testing.assert_allclose(loss, (w0 * np.log(16 / 3) + w1 * np.log(2)) / (2 * w0 + w1), rtol=1e-5)


def test_counts_of_right_and_wrong_pixels():
    labels = jnp.array([[[0, 0, 1], [1, 1, 255]], [[2, 2, 2], [255, 0, 0]]], jnp.uint8)
    predictions = jnp.array([[[0, 1, 1], [1, 0, 0]], [[2, 2, 2], [2, 1, 1]]], jnp.uint8)
    np.testing.assert_array_equal(losses.class_counts(labels, 4), [[2, 3, 0, 0], [2, 0, 3, 0]])
    right, wrong = correctness_counts(predictions, labels, 4)
    np.testing.assert_array_equal(right, [[1, 2, 0, 0], [0, 0, 3, 0]])
    np.testing.assert_array_equal(wrong, [[1, 1, 0, 0], [2, 0, 0, 0]])
    # Over both images: 3 wrong / 1 right, 1 / 2, 0 / 3 held at the limit, and no pixel at all.
    gamma = correctness_balance(right.mean(0), wrong.mean(0))
    np.testing.assert_allclose(gamma, [3, 0.5, 0.01, 1])


def test_gamma_is_limited_and_one_without_positives():
    gamma = correctness_balance(jnp.array([10.0, 1, 10_000, 0, 4]), jnp.array([30.0, 1000, 1, 7, 0]))
    np.testing.assert_allclose(gamma, [3, 100, 0.01, 1, 0.01])
    np.testing.assert_allclose(correctness_balance([1.0], [50.0], limits=(0.5, 8.0)), [8])


def confidences(*values):
    """Logits [1, 1, N] of confidences."""
    values = np.float32(values)[None, None]
    return np.log(values / (1 - values))


def class_map(*values):
    return np.uint8(values)[None, None]


def test_auxiliary_loss_of_one_class_is_the_ordinary_one():
    # -ln 0.8 - ln(1 - 0.3)
    loss = auxiliary_loss(
        confidences(0.8, 0.3), class_map(0, 1), class_map(0, 0), class_weights=[1, 9], gamma=[1, 9], normalise="sum"
    )
    np.testing.assert_allclose(loss, 0.579818, rtol=1e-5)


def test_auxiliary_loss_of_two_classes_by_hand():
    # Class 0, p = 3/4, W = 1.717577: two right, a = 0.9 and 0.8, one wrong, a = 0.3, gamma = 1/2. Class 1, p = 1/4: one
    # right, gamma = 0 / 1. Then W * (-(ln 0.9 + ln 0.8) / 2 - ln 0.7) = 0.894732. A void pixel changes nothing.
    arguments = (confidences(0.9, 0.8, 0.3, 0.6, 0.99), class_map(0, 0, 1, 1, 1), class_map(0, 0, 0, 1, 255))
    weights, gamma = inverse_log_weights(jnp.array([0.75, 0.25]), 1.04), jnp.array([0.5, 0.0])
    total = auxiliary_loss(*arguments, class_weights=weights, gamma=gamma, normalise="sum")
    np.testing.assert_allclose(total, 0.894732, rtol=1e-5)
    mean = auxiliary_loss(*arguments, class_weights=weights, gamma=gamma)
    np.testing.assert_allclose(mean, 0.894732 / 4, rtol=1e-5)
    # Weights W/2, W/2, W and 0, so that W falls out.
    mean = auxiliary_loss(*arguments, class_weights=weights, gamma=gamma, normalise="weights")
    np.testing.assert_allclose(mean, 0.894732 / (2 * 1.717577), rtol=1e-5)


def test_auxiliary_loss_with_the_gamma_of_the_batch():
    # One class, p = 1/4, W = 3.927079; three right, a = 0.9, and one wrong, a = 0.2, in two images: gamma = 1/3 of both
    # together, and W * (-ln 0.9 - ln 0.8) = 1.290061.
    logits = confidences(0.9, 0.9, 0.9, 0.2).reshape(2, 1, 2)
    predictions, labels = class_map(0, 0, 0, 1).reshape(2, 1, 2), jnp.zeros((2, 1, 2), jnp.uint8)
    weights = inverse_log_weights(jnp.array([0.25, 0.0]), 1.04)
    loss = auxiliary_loss(logits, predictions, labels, class_weights=weights, scope="batch", normalise="sum")
    np.testing.assert_allclose(loss, 1.290061, rtol=1e-5)


def test_gamma_balances_right_and_wrong_of_every_class():
    # At a = 0.5 everywhere every pixel costs ln 2, so with gamma = wrong / right a class's two totals are equal: their
    # gradients on the logits, of opposite signs, cancel.
    rng = np.random.default_rng(0)
    labels, predictions = (jnp.asarray(rng.integers(0, 3, (2, 8, 9)), jnp.uint8) for _ in range(2))
    gradient = jax.jit(jax.grad(losses.auxiliary_loss), static_argnames="scope")(
        jnp.zeros(labels.shape), predictions, labels, class_weights=[1.0, 5.0, 20.0], scope="batch"
    )
    for index in range(3):
        assert np.abs(gradient[labels == index]).max() > 0
        np.testing.assert_allclose(gradient[labels == index].sum(), 0, atol=1e-6)


def test_auxiliary_loss_is_least_where_the_docstring_says():
    # A share r = 3/4 is right and gamma = 2: a = gamma r / (gamma r + 1 - r) = 6/7.
    predictions, labels = class_map(0, 0, 0, 1), class_map(0, 0, 0, 0)

    def loss(logit):
        logits = jnp.broadcast_to(logit, labels.shape)
        return losses.auxiliary_loss(logits, predictions, labels, class_weights=[3.0, 1.0], gamma=[2.0, 1.0])

    slope = jax.jit(jax.vmap(jax.grad(loss)))(jnp.log(jnp.array([4.0, 6.0, 9.0])))
    assert slope[0] < -1e-2 and abs(slope[1]) < 1e-5 and slope[2] > 1e-2


def test_auxiliary_loss_without_a_label_is_zero_and_of_a_wrong_label_nan():
    logits, predictions = jnp.array([[3e4, -3e4]]), jnp.zeros((1, 2), jnp.uint8)
    with_gradient = jax.jit(jax.value_and_grad(losses.auxiliary_loss), static_argnames="normalise")
    for normalise in ("pixels", "weights", "sum"):
        options = {"class_weights": jnp.ones(2), "gamma": jnp.ones(2), "normalise": normalise}
        void = jnp.full((1, 2), 255, jnp.uint8)
        value, gradient = with_gradient(logits, predictions, void, **options)
        assert value == 0 and not np.any(gradient)
        assert np.isnan(with_gradient(logits, predictions, jnp.array([[0, 2]], jnp.uint8), **options)[0])
    # Large logits are finite: -ln(1 - sigmoid(30000)) = 30000 for the wrong one, 0 for the other.
    labels = jnp.array([[1, 0]], jnp.uint8)
    loss = auxiliary_loss(logits, jnp.array([[0, 1]], jnp.uint8), labels, class_weights=jnp.ones(2), gamma=jnp.ones(2))
    np.testing.assert_allclose(loss, 15_000, rtol=1e-6)


def test_auxiliary_loss_refuses_what_does_not_fit():
    logits, maps = jnp.zeros((1, 2, 3)), jnp.zeros((1, 2, 3), jnp.uint8)
    with pytest.raises(ValueError, match="scope is 'labelled_set' and gamma is None"):
        losses.auxiliary_loss(logits, maps, maps, class_weights=[1.0])
    with pytest.raises(ValueError, match=r"gamma has shape \(1,\); expected \(2,\)"):
        losses.auxiliary_loss(logits, maps, maps, class_weights=[1.0, 1.0], gamma=[1.0])
    with pytest.raises(ValueError, match="unknown scope 'image'"):
        losses.auxiliary_loss(logits, maps, maps, class_weights=[1.0], gamma=[1.0], scope="image")
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 1\).*expected three equal shapes"):
        losses.auxiliary_loss(logits[..., None], maps, maps, class_weights=[1.0], gamma=[1.0])


def test_binary_cross_entropy_by_hand():
    # -ln 0.8 and -ln(1 - 0.3), the third pixel without a label.
    logits, targets = confidences(0.8, 0.3, 0.99), jnp.array([[[1.0, 0.0, 0.0]]])
    loss = binary_cross_entropy(logits, targets, labels=class_map(4, 0, 255))
    np.testing.assert_allclose(loss, 0.579818 / 2, rtol=1e-5)
    np.testing.assert_allclose(binary_cross_entropy(logits[..., :2], targets[..., :2]), 0.579818 / 2, rtol=1e-5)
    for target in (0.0, 1.0):
        np.testing.assert_allclose(binary_cross_entropy(jnp.zeros((2, 3)), target), 0.693147, atol=1e-6)
    # One number for all: -(ln 0.2 + ln 0.7) / 2.
    np.testing.assert_allclose(binary_cross_entropy(logits[..., :2], 0.0), -(np.log(0.2) + np.log(0.7)) / 2, rtol=1e-5)
    assert binary_cross_entropy(logits, 1.0, labels=class_map(255, 255, 255)) == 0
    weighted = binary_cross_entropy(jnp.array([0.0, 5.0, np.inf]), 1.0, weights=jnp.array([3.0, 1.0, 0.0]))
    np.testing.assert_allclose(weighted, (3 * np.log(2) + np.log1p(np.exp(-5))) / 4, rtol=1e-5)


def test_threshold_selects_labels():
    labels = jnp.array([3, 1, 255, 0], jnp.uint8)
    confidence = jnp.array([0.2, 0.9, 1.0, 0.0])
    for threshold, expected in (
        (0.0, [3, 1, 255, 0]),
        (0.2, [3, 1, 255, 255]),
        (0.9, [255, 1, 255, 255]),
        (1.01, [255] * 4),
    ):
        selected = confident_labels(labels, confidence, threshold)
        assert selected.dtype == jnp.uint8
        np.testing.assert_array_equal(selected, expected)


def test_masked_cross_entropy_is_over_what_is_selected():
    # ln 3 of three equal logits at the one pixel selected, whatever the others cost.
    logits = jnp.array([[0.0, 0, 0], [50, 0, 0], [0, 0, 9]])
    labels, confidence = jnp.array([2, 1, 0], jnp.uint8), jnp.array([0.95, 0.5, 0.1])
    grad = jax.jit(jax.value_and_grad(losses.masked_cross_entropy, argnums=(0, 2)), static_argnames="threshold")
    loss, (gradient, through_confidence) = grad(logits, labels, confidence, threshold=0.9)
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)
    np.testing.assert_allclose(gradient[0], [1 / 3, 1 / 3, -2 / 3], rtol=1e-5)
    assert not np.any(gradient[1:]) and not np.any(through_confidence)
    np.testing.assert_allclose(
        masked_cross_entropy(logits, labels, confidence, 0.0), cross_entropy(logits, labels), rtol=1e-6
    )
    loss, (gradient, _) = grad(logits, labels, confidence, threshold=1.1)
    assert loss == 0 and not np.any(gradient)
