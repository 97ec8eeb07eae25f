"""Losses. The ignore label (255) is handled here and nowhere else.

Every mean is a sum over a count of the whole (global) batch: under `jit` with a sharded batch that is what
the two reductions below mean, whereas a mean of per-device means would weight pixels by how many of their
neighbours count.
"""

from __future__ import annotations

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


def sigmoid_cross_entropy(logits: jax.Array, tags: jax.Array, *, background: int | None = None) -> jax.Array:
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
    logits, tags = logits.astype(jnp.float32), tags.astype(jnp.float32)
    return -jnp.mean(tags * jax.nn.log_sigmoid(logits) + (1 - tags) * jax.nn.log_sigmoid(-logits))
