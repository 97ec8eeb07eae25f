"""Losses of pixels, of image tags and of confidence maps. The ignore label (255) is handled here and nowhere else.

Shapes use B for images, H and W for pixels and K for classes; `...` stands for any leading axes, none included. Every
mean is a sum over the global batch divided by a count over the global batch. Under `jit` the two reductions span all
devices, so that each counted pixel has the same weight wherever it is.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE


def masked_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted mean, sum(weights * values) / sum(weights).

    Args:
      values: floating, any shape. Entries of weight 0 may be inf or nan.
      weights: bool or floating >= 0, broadcastable to `values`.

    Returns:
      float32 scalar; 0, with a zero gradient, where every weight is 0.
    """
    weights = jnp.broadcast_to(weights, values.shape).astype(jnp.float32)
    counted = weights > 0
    total = jnp.sum(jnp.where(counted, values, 0).astype(jnp.float32) * weights)
    count = jnp.sum(weights)
    return total / jnp.where(count > 0, count, 1.0)


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross entropy of every pixel, log(sum_k exp(logits_k)) - logits_label, without a mean.

    Args:
      logits: floating [..., K].
      labels: integer [...], 0..K-1 or 255.

    Returns:
      float32 [...]; 0 where the label is 255. Any other label outside 0..K-1 gives nan, so that data of another set
      of classes stops a run instead of training it.

    Raises:
      ValueError: the shape of `labels` is not that of `logits` without the last axis.
    """
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels have shape {labels.shape}; expected {logits.shape[:-1]}, the logits' without classes")
    classes = logits.shape[-1]
    logits = logits.astype(jnp.float32)
    logits = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    # A comparison fused into the sum instead of a gather, whose gradient would be a scatter.
    chosen = labels[..., None] == jnp.arange(classes, dtype=labels.dtype)
    losses = jnp.log(jnp.sum(jnp.exp(logits), -1)) - jnp.sum(jnp.where(chosen, logits, 0.0), -1)
    known = (labels >= 0) & (labels < classes)
    return jnp.where(known, losses, jnp.where(labels == IGNORE, 0.0, jnp.nan))


def cross_entropy(logits: jax.Array, labels: jax.Array, *, class_weights: jax.Array | None = None) -> jax.Array:
    """Mean softmax cross entropy over the pixels whose label is not 255.

    Args:
      logits: floating [..., K].
      labels: integer [...], 0..K-1 or 255; any other label makes the result nan.
      class_weights: floating [K], at least 0, the weight w of a pixel by its label. The mean is sum(w * loss) / sum(w),
        as in `torch.nn.CrossEntropyLoss`. None weights all pixels alike.

    Returns:
      float32 scalar; ln K at zero logits; 0, with a zero gradient, where every label is 255.

    Raises:
      ValueError: shapes do not fit.
    """
    weights = labels != IGNORE
    if class_weights is not None:
        class_weights = jnp.asarray(class_weights, jnp.float32)
        if class_weights.shape != logits.shape[-1:]:
            raise ValueError(f"class_weights have shape {class_weights.shape}; expected {logits.shape[-1:]}")
        weights = jnp.where(weights, jnp.take(class_weights, labels, mode="clip"), 0.0)
    return masked_mean(pixel_cross_entropy(logits, labels), weights)


def multi_label_cross_entropy(logits: jax.Array, tags: jax.Array, *, background: int | None = None) -> jax.Array:
    """Mean binary cross entropy of image tags, over images and over classes other than the background.

    Args:
      logits: floating [B, K], or [B, K - 1] of a network without an output for the background.
      tags: bool, integer or floating [B, K], 0 or 1.
      background: static, the class 0..K-1 that is left out. None leaves out none.

    Returns:
      float32 scalar; ln 2 at zero logits.

    Raises:
      ValueError: the number of logits is neither that of the tags nor one less.
    """
    if background is not None:
        if logits.shape[-1] == tags.shape[-1]:
            logits = jnp.delete(logits, background, axis=-1)
        tags = jnp.delete(tags, background, axis=-1)
    if logits.shape != tags.shape:
        raise ValueError(f"logits have shape {logits.shape}; expected {tags.shape}, that of the tags that count")
    return jnp.mean(_binary_cross_entropy(logits, tags.astype(jnp.float32)))


def binary_cross_entropy(
    logits: jax.Array,
    targets: jax.Array | float,
    *,
    labels: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Mean binary cross entropy, -t * ln sigmoid(logits) - (1 - t) * ln(1 - sigmoid(logits)) for targets t.

    A discriminator has it once with t = 1 and once with t = 0; its generator has it with t = 1.

    Args:
      logits: floating [...].
      targets: bool, integer or floating in 0..1, broadcastable to `logits`.
      labels: integer, broadcastable to `logits`; pixels labelled 255 do not count. None counts all pixels.
      weights: bool or floating >= 0, broadcastable to `logits`, the weights of the mean. None weights all alike.

    Returns:
      float32 scalar; ln 2 at zero logits; 0, with a zero gradient, where no pixel counts.
    """
    counted = jnp.ones((), bool) if labels is None else labels != IGNORE
    counted = counted if weights is None else counted * weights
    return masked_mean(_binary_cross_entropy(logits, jnp.asarray(targets, jnp.float32)), counted)


def confident_labels(labels: jax.Array, confidence: jax.Array, threshold: float) -> jax.Array:
    """Labels where the confidence reaches a threshold, 255 elsewhere.

    Args:
      labels: integer [...], 0..K-1 or 255.
      confidence: floating [...] in 0..1.
      threshold: the least confidence that selects a pixel; 0 selects all, more than 1 none.

    Returns:
      [...] in the labels' dtype.

    References:
      T_aux in section 3.1 of "Semi-Supervised Semantic Segmentation Using Auxiliary Network"; T_semi in equation 5 of
      Hung et al., "Adversarial Learning for Semi-Supervised Semantic Segmentation".
    """
    return jnp.where(confidence >= threshold, labels, jnp.asarray(IGNORE, labels.dtype))


def masked_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    confidence: jax.Array,
    threshold: float,
    *,
    class_weights: jax.Array | None = None,
) -> jax.Array:
    """`cross_entropy` over the pixels whose confidence reaches a threshold.

    The mean is over the selected pixels, as in the authors' code. No gradient passes to `confidence`.

    Args:
      logits: floating [..., K].
      labels: integer [...], 0..K-1 or 255.
      confidence: floating [...] in 0..1.
      threshold: the least confidence that selects a pixel.
      class_weights: as in `cross_entropy`.

    Returns:
      float32 scalar; 0, with a zero gradient, where no pixel is selected.

    References:
      Hung et al., "Adversarial Learning for Semi-Supervised Semantic Segmentation", equation 5.
    """
    return cross_entropy(logits, confident_labels(labels, confidence, threshold), class_weights=class_weights)


def class_counts(labels: jax.Array, classes: int) -> jax.Array:
    """Number of pixels of each class in each image.

    The mean over images of one size, divided by H * W, is p_class with void pixels in the denominator. The published
    Cityscapes weights 1 / ln(1.1 + p_class) were computed from it (see `inverse_log_weights`).

    Args:
      labels: integer [..., H, W], 0..K-1; any other value, such as 255, is of no class.
      classes: static, K.

    Returns:
      float32 [..., K].
    """
    hits = labels[..., None] == jnp.arange(classes, dtype=labels.dtype)  # [..., H, W, K]
    return hits.sum((-3, -2), dtype=jnp.int32).astype(jnp.float32)


def correctness_counts(predictions: jax.Array, labels: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
    """Numbers of rightly and of wrongly predicted pixels of each true class in each image.

    Args:
      predictions: integer [..., H, W], 0..K-1.
      labels: integer [..., H, W], 0..K-1 or 255; pixels labelled 255 do not count.
      classes: static, K.

    Returns:
      Two float32 [..., K], right and wrong: the positives and the negatives of `auxiliary_loss`. Their sum is
      `class_counts`.
    """
    right = class_counts(jnp.where(predictions == labels, labels, jnp.asarray(IGNORE, labels.dtype)), classes)
    return right, class_counts(labels, classes) - right


def inverse_log_weights(frequencies: jax.Array, c: float) -> jax.Array:
    """Class weights 1 / ln(c + p_class).

    Args:
      frequencies: floating [K] in 0..1, p_class: the share of all pixels that are of the class.
      c: above 1. The auxiliary paper has 1.1 for cross entropy (section 4.2) and 1.04 for `auxiliary_loss` (section
        3.1). At 1.04 an absent class weighs 18 times as much as a class that fills every image.

    Returns:
      float32 [K].

    References:
      Paszke et al., "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation";
      "Semi-Supervised Semantic Segmentation Using Auxiliary Network".
    """
    return 1 / jnp.log(c + jnp.asarray(frequencies, jnp.float32))


def correctness_balance(
    right: jax.Array, wrong: jax.Array, *, limits: tuple[float, float] = (0.01, 100.0)
) -> jax.Array:
    """gamma of `auxiliary_loss`: wrong pixels / right pixels of each class.

    gamma gives the right and the wrong pixels of a class equal total weight. The best confidence that depends on the
    class alone is then 0.5. The limits are ours: without them a class that is almost always right would have no
    positives in the loss, and a class that is almost always wrong would have no negatives.

    Args:
      right, wrong: at least 0, [..., K], numbers of pixels, or their means over the same images
        (`correctness_counts`).
      limits: smallest and largest gamma.

    Returns:
      float32 [..., K]; 1 where a class has no right pixel.

    References:
      "Semi-Supervised Semantic Segmentation Using Auxiliary Network", equation 1.
    """
    right, wrong = jnp.asarray(right, jnp.float32), jnp.asarray(wrong, jnp.float32)
    return jnp.where(right > 0, jnp.clip(wrong / jnp.where(right > 0, right, 1.0), *limits), 1.0)


def auxiliary_loss(
    logits: jax.Array,
    predictions: jax.Array,
    labels: jax.Array,
    *,
    class_weights: jax.Array,
    gamma: jax.Array | None = None,
    scope: Literal["labelled_set", "batch"] = "labelled_set",
    normalise: Literal["pixels", "weights", "sum"] = "pixels",
) -> jax.Array:
    """Weighted binary cross entropy of a confidence map against the correctness of a prediction.

    L = -sum W * (gamma * y * ln a + (1 - y) * ln(1 - a)) over the pixels, where a = sigmoid(logits), y is 1 where the
    prediction is right and 0 elsewhere, and W and gamma are those of the pixel's true class. For pixels of one class,
    a share r of them right, the best constant a is gamma * r / (gamma * r + 1 - r).

    Args:
      logits: floating [..., H, W], of the auxiliary net.
      predictions: integer [..., H, W], 0..K-1, of the segmentation net.
      labels: integer [..., H, W], 0..K-1 or 255; pixels labelled 255 do not count. Any other label makes the result
        nan.
      class_weights: floating [K], W (`inverse_log_weights` at c = 1.04).
      gamma: floating [K] (`correctness_balance` over the whole labelled set). The scope "batch" does not use it.
      scope: static, the pixels from which gamma comes, which the paper does not say. "labelled_set" takes the argument
        `gamma`; "batch" computes it from this batch. Most classes have few pixels or none in a batch, and their gamma
        would jump between its limits from step to step.
      normalise: static, the divisor of the sum. "pixels": the number of valid pixels. "weights": the sum of their
        weights, W * gamma or W. "sum": 1, as the equation is printed. With "pixels" one learning rate fits all sizes
        and batches (a constant factor changes Adam only through its epsilon), and a batch of rare classes keeps its
        larger weight, which "weights" would divide away.

    Returns:
      float32 scalar; 0, with a zero gradient, where every label is 255.

    Raises:
      ValueError: shapes do not fit, `gamma` is missing, or an option is not one of the above.

    References:
      "Semi-Supervised Semantic Segmentation Using Auxiliary Network", equation 1.
    """
    if not logits.shape == predictions.shape == labels.shape:
        shapes = f"{logits.shape}, {predictions.shape} and {labels.shape}"
        raise ValueError(f"logits, predictions and labels have shapes {shapes}; expected three equal ones")
    if scope not in ("labelled_set", "batch") or normalise not in ("pixels", "weights", "sum"):
        raise ValueError(f"unknown scope {scope!r} or normalise {normalise!r}")
    class_weights = jnp.asarray(class_weights, jnp.float32)
    classes = class_weights.shape[0]
    if scope == "batch":
        right, wrong = correctness_counts(predictions, labels, classes)
        over_images = tuple(range(right.ndim - 1))
        gamma = correctness_balance(right.sum(over_images), wrong.sum(over_images))
    elif gamma is None:
        raise ValueError("scope is 'labelled_set' and gamma is None; expected gamma of shape [K]")
    gamma = jnp.asarray(gamma, jnp.float32)
    if gamma.shape != (classes,):
        raise ValueError(f"gamma has shape {gamma.shape}; expected {(classes,)}, that of class_weights")
    positive = predictions == labels
    weights = jnp.where(positive, _of_class(gamma * class_weights, labels), _of_class(class_weights, labels))
    weights = jnp.where(labels == IGNORE, 0.0, weights)
    losses = jnp.where(labels == IGNORE, 0.0, _binary_cross_entropy(logits, positive.astype(jnp.float32)))
    if normalise == "weights":
        return masked_mean(losses, weights)
    if normalise == "sum":
        return jnp.sum(losses * weights)
    return masked_mean(losses * weights, labels != IGNORE)


def _binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """float32 [...] of logits and targets [...], without a mean."""
    logits = logits.astype(jnp.float32)
    return -(targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits))


def _of_class(values: jax.Array, labels: jax.Array) -> jax.Array:
    """values [K] at labels [...]: float32 [...], nan at labels outside 0..K-1."""
    return jnp.take(values, labels.astype(jnp.int32), mode="fill", fill_value=jnp.nan)
