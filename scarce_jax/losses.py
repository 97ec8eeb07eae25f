"""Losses of pixels, image tags and confidence maps. Only this module handles the label 255 (void) in losses.

In shapes B is the number of images, H and W are pixels, K is the number of classes, and `...` stands for any leading
axes. Each mean is a sum over the global batch divided by a count over the global batch. Under `jit` both reductions
span all devices, so that all counted pixels have the same weight.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from scarce_jax.data.schema import IGNORE
from scarce_jax.ops.cross_entropy import resized_cross_entropy, softmax_cross_entropy
from scarce_jax.ops.logits import Logits, Phases, Resized


def masked_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted mean, sum(weights * values) / sum(weights).

    Args:
      values: floating, any shape. Entries with weight 0 may be inf or nan.
      weights: bool or floating >= 0, broadcastable to `values`.

    Returns:
      float32 scalar; 0, with a zero gradient, if all weights are 0.
    """
    weights = jnp.broadcast_to(weights, values.shape).astype(jnp.float32)
    counted = weights > 0
    total = jnp.sum(jnp.where(counted, values, 0).astype(jnp.float32) * weights)
    count = jnp.sum(weights)
    return total / jnp.where(count > 0, count, 1.0)


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy of each pixel, log(sum_k exp(logits_k)) - logits_label, without a mean.

    Args:
      logits: floating [..., K].
      labels: integer [...], 0..K-1 or 255.

    Returns:
      float32 [...]; 0 where the label is 255. All other labels outside 0..K-1 give nan, so that data of another set of
      classes stops a run.

    Raises:
      ValueError: the shape of `labels` is not that of `logits` without the last axis.
    """
    _check_labels(labels, logits.shape)
    known = (labels >= 0) & (labels < logits.shape[-1])
    return jnp.where(known, softmax_cross_entropy(logits, labels), jnp.where(labels == IGNORE, 0.0, jnp.nan))


def cross_entropy(logits: Logits, labels: jax.Array, *, class_weights: jax.Array | None = None) -> jax.Array:
    """Mean softmax cross-entropy over the pixels whose label is not 255.

    Args:
      logits: floating [..., K], or logits [B, H, W, K] that are not yet at full size (`ops.logits`).
      labels: integer [...], 0..K-1 or 255; any other label makes the result nan.
      class_weights: floating [K], at least 0, the weight w of a pixel by its label. The mean is sum(w * loss) / sum(w),
        as in `torch.nn.CrossEntropyLoss`. None weights all pixels equally.

    Returns:
      float32 scalar: ln K at zero logits; 0, with a zero gradient, if all labels are 255.

    Raises:
      ValueError: the shapes do not fit.
    """
    classes = logits.shape[-1]
    _check_labels(labels, logits.shape)
    weights = labels != IGNORE
    if class_weights is not None:
        class_weights = jnp.asarray(class_weights, jnp.float32)
        if class_weights.shape != (classes,):
            raise ValueError(f"class_weights have shape {class_weights.shape}; expected {(classes,)}")
        weights = jnp.where(weights, jnp.take(class_weights, labels, mode="clip"), 0.0)
    if isinstance(logits, Resized):
        weights = weights.astype(jnp.float32)
        count = jnp.sum(weights)
        mean = resized_cross_entropy(logits, labels, weights) / jnp.where(count > 0, count, 1.0)
        foreign = ((labels < 0) | (labels >= classes)) & (labels != IGNORE)
        return jnp.where(jnp.any(foreign), jnp.nan, mean)
    if isinstance(logits, Phases):
        labels, weights = logits.arrange(labels, IGNORE), logits.arrange(weights, 0)
        logits = logits.split()
    return masked_mean(pixel_cross_entropy(logits, labels), weights)


def multi_label_cross_entropy(logits: jax.Array, tags: jax.Array, *, background: int | None = None) -> jax.Array:
    """Mean binary cross-entropy of image tags, over images and over classes other than the background.

    Args:
      logits: floating [B, K], or [B, K - 1] from a net without an output for the background.
      tags: bool, integer or floating [B, K], 0 or 1.
      background: static, id of the class that is left out; None leaves out none.

    Returns:
      float32 scalar: ln 2 at zero logits.

    Raises:
      ValueError: the number of logits is neither that of the tags nor one less.
    """
    if background is not None:
        if logits.shape[-1] == tags.shape[-1]:
            logits = jnp.delete(logits, background, axis=-1)
        tags = jnp.delete(tags, background, axis=-1)
    if logits.shape != tags.shape:
        raise ValueError(f"logits have shape {logits.shape}; expected {tags.shape}, as the tags without the background")
    return jnp.mean(_binary_cross_entropy(logits, tags.astype(jnp.float32)))


def binary_cross_entropy(
    logits: jax.Array,
    targets: jax.Array | float,
    *,
    labels: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Mean binary cross-entropy -t * ln sigmoid(logits) - (1 - t) * ln(1 - sigmoid(logits)) for targets t.

    A discriminator is trained with t = 1 for true and t = 0 for predicted masks, its generator with t = 1.

    Args:
      logits: floating [...].
      targets: bool, integer or floating in 0..1, broadcastable to `logits`.
      labels: integer, broadcastable to `logits`; pixels with label 255 are not counted. None counts all pixels.
      weights: bool or floating >= 0, broadcastable to `logits`, weights of the mean. None weights all equally.

    Returns:
      float32 scalar: ln 2 at zero logits; 0, with a zero gradient, if no pixel is counted.
    """
    counted = jnp.ones((), bool) if labels is None else labels != IGNORE
    counted = counted if weights is None else counted * weights
    return masked_mean(_binary_cross_entropy(logits, jnp.asarray(targets, jnp.float32)), counted)


def confident_labels(labels: jax.Array, confidence: jax.Array, threshold: float) -> jax.Array:
    """Labels of pixels whose confidence is at least a threshold, and 255 for the others.

    Args:
      labels: integer [...], 0..K-1 or 255.
      confidence: floating [...] in 0..1.
      threshold: least confidence of a selected pixel; 0 selects all pixels, more than 1 none.

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
    """`cross_entropy` over the pixels whose confidence is at least a threshold.

    The mean is over the selected pixels, as in the authors' code. `confidence` gets no gradient.

    Args:
      logits: floating [..., K].
      labels: integer [...], 0..K-1 or 255.
      confidence: floating [...] in 0..1.
      threshold: least confidence of a selected pixel.
      class_weights: as in `cross_entropy`.

    Returns:
      float32 scalar; 0, with a zero gradient, if no pixel is selected.

    References:
      Hung et al., "Adversarial Learning for Semi-Supervised Semantic Segmentation", equation 5.
    """
    return cross_entropy(logits, confident_labels(labels, confidence, threshold), class_weights=class_weights)


def class_counts(labels: jax.Array, classes: int) -> jax.Array:
    """Number of pixels of each class in each image.

    Divided by H * W and averaged over images it is p_class, with void pixels in the denominator. The published
    Cityscapes weights 1 / ln(1.1 + p_class) were computed in this way (see `inverse_log_weights`).

    Args:
      labels: integer [..., H, W], 0..K-1; other values, such as 255, are not counted.
      classes: static, K.

    Returns:
      float32 [..., K].
    """
    hits = labels[..., None] == jnp.arange(classes, dtype=labels.dtype)  # [..., H, W, K]
    return hits.sum((-3, -2), dtype=jnp.int32).astype(jnp.float32)


def correctness_counts(predictions: jax.Array, labels: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
    """Numbers of correctly and of wrongly predicted pixels of each true class in each image.

    Args:
      predictions: integer [..., H, W], 0..K-1.
      labels: integer [..., H, W], 0..K-1 or 255; pixels with label 255 are not counted.
      classes: static, K.

    Returns:
      Two float32 [..., K], right and wrong, whose sum is `class_counts`. In `auxiliary_loss` they are the positives and
      the negatives.
    """
    right = class_counts(jnp.where(predictions == labels, labels, jnp.asarray(IGNORE, labels.dtype)), classes)
    return right, class_counts(labels, classes) - right


def inverse_log_weights(frequencies: jax.Array, c: float) -> jax.Array:
    """Class weights 1 / ln(c + p_class).

    Args:
      frequencies: floating [K] in 0..1, p_class, the share of all pixels that belong to the class.
      c: above 1. The auxiliary paper uses 1.1 for cross-entropy (section 4.2) and 1.04 for `auxiliary_loss` (section
        3.1). At 1.04 the weight of an absent class is 18 times that of a class that fills all images.

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
    """gamma of `auxiliary_loss`: the ratio of wrong to right pixels of each class.

    gamma gives right and wrong pixels of a class equal total weight, so the best confidence that depends only on the
    class is 0.5. The limits are ours. Without them a class that is almost always right would have no positives in the
    loss, and one that is almost always wrong no negatives.

    Args:
      right, wrong: [..., K], at least 0, numbers of pixels (`correctness_counts`) or their means over the same images.
      limits: smallest and largest gamma.

    Returns:
      float32 [..., K]; 1 for classes without right pixels.

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
    """Weighted binary cross-entropy of a confidence map against the correctness of a prediction.

    L = -sum W * (gamma * y * ln a + (1 - y) * ln(1 - a)) over the pixels, with a = sigmoid(logits). y is 1 where the
    prediction is right, else 0. W and gamma are those of the pixel's true class. For pixels of one class, of which a
    share r is right, the best constant a is gamma * r / (gamma * r + 1 - r).

    Args:
      logits: floating [..., H, W], from the auxiliary net.
      predictions: integer [..., H, W], 0..K-1, from the segmentation net.
      labels: integer [..., H, W], 0..K-1 or 255; pixels with label 255 are not counted. Any other label makes the
        result nan.
      class_weights: floating [K], W (`inverse_log_weights` at c = 1.04).
      gamma: floating [K] (`correctness_balance` over the whole labelled set). The scope "batch" ignores it.
      scope: static, the pixels from which gamma is computed; the paper does not specify it. "labelled_set" uses the
        argument `gamma`. "batch" computes it from this batch, where most classes have few pixels or none, so that their
        gamma jumps between its limits from step to step.
      normalise: static, the divisor of the sum: "pixels" is the number of labelled pixels, "weights" the sum of their
        weights W * gamma or W, and "sum" is 1, as the equation is printed. With "pixels" one learning rate fits all
        sizes and batches (a constant factor changes Adam only through its epsilon), and a batch of rare classes keeps
        its larger weight, which "weights" divides away.

    Returns:
      float32 scalar; 0, with a zero gradient, if all labels are 255.

    Raises:
      ValueError: the shapes do not fit, `gamma` is missing, or an option is unknown.

    References:
      "Semi-Supervised Semantic Segmentation Using Auxiliary Network", equation 1.
    """
    if not logits.shape == predictions.shape == labels.shape:
        shapes = f"{logits.shape}, {predictions.shape} and {labels.shape}"
        raise ValueError(f"logits, predictions and labels have shapes {shapes}; expected three equal shapes")
    if scope not in ("labelled_set", "batch") or normalise not in ("pixels", "weights", "sum"):
        raise ValueError(
            f"unknown scope {scope!r} or normalise {normalise!r}; expected 'labelled_set' or 'batch', and 'pixels', "
            f"'weights' or 'sum'"
        )
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
        raise ValueError(f"gamma has shape {gamma.shape}; expected {(classes,)}, as class_weights")
    positive = predictions == labels
    weights = jnp.where(positive, _of_class(gamma * class_weights, labels), _of_class(class_weights, labels))
    weights = jnp.where(labels == IGNORE, 0.0, weights)
    losses = jnp.where(labels == IGNORE, 0.0, _binary_cross_entropy(logits, positive.astype(jnp.float32)))
    if normalise == "weights":
        return masked_mean(losses, weights)
    if normalise == "sum":
        return jnp.sum(losses * weights)
    return masked_mean(losses * weights, labels != IGNORE)


def _check_labels(labels: jax.Array, shape: tuple[int, ...]) -> None:
    if labels.shape != shape[:-1]:
        raise ValueError(f"labels have shape {labels.shape}; expected {shape[:-1]}, one per vector of logits")


def _binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross-entropy of logits and targets [...] without a mean: float32 [...]."""
    logits = logits.astype(jnp.float32)
    return -(targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits))


def _of_class(values: jax.Array, labels: jax.Array) -> jax.Array:
    """Values [K] of the classes of labels [...]: float32 [...], nan for labels outside 0..K-1."""
    return jnp.take(values, labels.astype(jnp.int32), mode="fill", fill_value=jnp.nan)
