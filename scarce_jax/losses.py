"""Losses of pixels, of images and of confidence maps. The ignore label (255) is handled here and nowhere else.

Every mean is a sum over a count of the whole (global) batch: under `jit` with a sharded batch that is what
the two reductions below mean, whereas a mean of per-device means would weight pixels by how many of their
neighbours count.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE


def masked_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum of `values` times `weights` over the sum of `weights`; 0 where no weight is positive.

    Args:
      values: floating, any shape. Entries of weight zero may be anything, inf and nan too.
      weights: bool or floating >= 0, broadcastable to `values`.

    Returns:
      float32 scalar.
    """
    weights = jnp.broadcast_to(weights, values.shape).astype(jnp.float32)
    counted = weights > 0
    total = jnp.sum(jnp.where(counted, values, 0).astype(jnp.float32) * weights)
    count = jnp.sum(weights)
    return total / jnp.where(count > 0, count, 1.0)


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross entropy of every pixel, before any mean: log(sum_k exp(logit_k)) - logit_label.

    Args:
      logits: floating [..., K].
      labels: integer [...], 0..K-1 or 255.

    Returns:
      float32 [...], 0 where the label is 255, nan at any other label outside 0..K-1: data of another set of
      classes should stop a run, not train it.
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
      labels: integer [...], 0..K-1 or 255; anything else makes the result nan.
      class_weights: [K], the weight of a pixel by its label; the mean is then sum(w * loss) / sum(w), as in
        torch.

    Returns:
      float32 scalar; 0, with a zero gradient, where every label is 255.
    """
    weights = labels != IGNORE
    if class_weights is not None:
        class_weights = jnp.asarray(class_weights, jnp.float32)
        if class_weights.shape != logits.shape[-1:]:
            raise ValueError(f"class_weights have shape {class_weights.shape}; expected {logits.shape[-1:]}")
        weights = jnp.where(weights, jnp.take(class_weights, labels, mode="clip"), 0.0)
    return masked_mean(pixel_cross_entropy(logits, labels), weights)


def multi_label_cross_entropy(logits: jax.Array, tags: jax.Array, *, background: int | None = None) -> jax.Array:
    """Mean binary cross entropy of image tags over images and classes other than the background.

    Args:
      logits: floating [B, K], or [B, K - 1] of a network without an output for the background.
      tags: [B, K], 0 or 1.
      background: index of the class left out, which is never tagged; None if there is none.

    Returns:
      float32 scalar; ln 2 at zero logits.
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
    """Mean binary cross entropy of logits against 0 and 1: both losses of a discriminator, and its generator's.

    Args:
      logits: floating [...].
      targets: 0 and 1 (or between), broadcastable to the logits: one number where all are real, or all fake.
      labels: integer, broadcastable to the logits; pixels labelled 255 do not count. None counts all.
      weights: bool or floating >= 0, broadcastable to the logits: of the mean. None weighs all alike.

    Returns:
      float32 scalar; ln 2 at zero logits; 0, with a zero gradient, where nothing counts.
    """
    counted = jnp.ones((), bool) if labels is None else labels != IGNORE
    counted = counted if weights is None else counted * weights
    return masked_mean(_binary_cross_entropy(logits, jnp.asarray(targets, jnp.float32)), counted)


def confident_labels(labels: jax.Array, confidence: jax.Array, threshold: float) -> jax.Array:
    """The labels of the pixels that are confident enough, 255 elsewhere.

    Args:
      labels: integer [...], 0..K-1 or 255.
      confidence: floating [...] in 0..1.
      threshold: the least confidence that is kept: 0 keeps all, more than 1 nothing. (Auxiliary confidence,
        section 3.1, T_aux; Hung et al., "Adversarial Learning for Semi-Supervised Semantic Segmentation",
        equation 5, T_semi.)

    Returns:
      [...] in the labels' dtype.
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
    """`cross_entropy` over the pixels that are confident enough (Hung et al., equation 5).

    The mean is over the selected pixels, as in the authors' code. Arguments as `cross_entropy` and
    `confident_labels`; no gradient passes to `confidence`.

    Returns:
      float32 scalar; 0, with a zero gradient, where nothing is selected.
    """
    return cross_entropy(logits, confident_labels(labels, confidence, threshold), class_weights=class_weights)


def class_counts(labels: jax.Array, classes: int) -> jax.Array:
    """Pixels of each class in each image: integer [..., H, W] -> float32 [..., K]; 255 counts nowhere.

    Divided by H * W and averaged over images of one size this is p_class, void in the denominator: what the
    published Cityscapes weights 1 / ln(1.1 + p_class) were computed from.
    """
    hits = labels[..., None] == jnp.arange(classes, dtype=labels.dtype)
    return hits.sum((-3, -2), dtype=jnp.int32).astype(jnp.float32)


def correctness_counts(predictions: jax.Array, labels: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
    """How many pixels of each true class an image's prediction has right, and how many wrong.

    Args:
      predictions: integer [..., H, W], class index.
      labels: integer [..., H, W], 0..K-1 or 255, which counts nowhere.
      classes: K.

    Returns:
      Two float32 [..., K]: right (the positives of the auxiliary truth) and wrong (its negatives). Their sum
      is `class_counts`.
    """
    right = class_counts(jnp.where(predictions == labels, labels, jnp.asarray(IGNORE, labels.dtype)), classes)
    return right, class_counts(labels, classes) - right


def inverse_log_weights(frequencies: jax.Array, c: float) -> jax.Array:
    """Class weights 1 / ln(c + p_class) (Paszke et al., "ENet").

    Args:
      frequencies: [K], p_class in 0..1.
      c: more than 1; 1.1 for cross entropy and 1.04 for the auxiliary loss (auxiliary confidence, sections 4.2
        and 3.1). At 1.04 the rarest class weighs 18 times as much as one that fills every image.

    Returns:
      float32 [K].
    """
    return 1 / jnp.log(c + jnp.asarray(frequencies, jnp.float32))


def correctness_balance(
    right: jax.Array, wrong: jax.Array, *, limits: tuple[float, float] = (0.01, 100.0)
) -> jax.Array:
    """gamma of the auxiliary loss: wrong pixels / right pixels of each class.

    With it both sides of a class weigh the same in total, so that a constant confidence of 0.5 is what knowing
    the class alone gives. The paper names no limits: a class that the net has (almost) all right would have no
    positives in the loss, one that it has (almost) all wrong would have nothing but them.

    Args:
      right, wrong: [..., K], pixels, or means of pixels over the same images (`correctness_counts`).
      limits: smallest and largest gamma.

    Returns:
      float32 [..., K]; 1 where a class has no right pixel.
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
    """Loss of a confidence map (auxiliary confidence, equation 1).

    L = -sum W * (gamma * y * ln a + (1 - y) * ln(1 - a)), a = sigmoid(logits), y = 1 where the prediction is
    right, W and gamma those of the pixel's TRUE class. Where a share r of such pixels is right the best a is
    gamma r / (gamma r + 1 - r).

    Args:
      logits: floating [..., H, W], of the auxiliary net.
      predictions: integer [..., H, W], the segmentation net's class.
      labels: integer [..., H, W], 0..K-1 or 255, which counts nowhere. Other labels make the result nan.
      class_weights: [K], W (`inverse_log_weights` at c = 1.04).
      gamma: [K], for the scope "labelled_set" (`correctness_balance` of the whole set).
      scope: over what wrong and right pixels are counted for gamma. The paper does not say. One gamma for the
        labelled set is the default: within a batch most classes have few pixels or none, and their gamma
        would jump between its limits from step to step.
      normalise: what the sum is divided by: the valid pixels, the sum of their weights (W * gamma or W), or
        nothing, as the equation is printed. Valid pixels by default: the rate then fits any size and batch
        (Adam is blind to a constant factor, but not beside its epsilon), and a batch of rare classes keeps its
        larger weight, which a division by its own weights would take away.

    Returns:
      float32 scalar; 0, with a zero gradient, where every label is 255.

    Raises:
      ValueError: shapes differ, or an option is not one of those above.
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
    """float32, before any mean."""
    logits = logits.astype(jnp.float32)
    return -(targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits))


def _of_class(values: jax.Array, labels: jax.Array) -> jax.Array:
    """values [K] looked up by class index, nan where there is no such class."""
    return jnp.take(values, labels.astype(jnp.int32), mode="fill", fill_value=jnp.nan)
