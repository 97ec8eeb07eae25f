"""The confusion matrix, counted on the device, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange


def confusion(predicted: jax.Array, truth: jax.Array, classes: int) -> jax.Array:
    """Counts pixels by true and predicted class: int32 [K, K + 1], exact.

    Rows are true classes, columns predicted ones; the last column counts predictions that are no class
    (outside 0..K-1, such as the 255 of a coarse mask). Pixels whose truth is no class (255 = ignore) count
    nowhere.
    The matrices of batches are to be added on the host, as int64.

    Args:
      predicted: integer [..., H, W].
      truth: uint8, of the same shape.
      classes: K, static.

    Raises:
      ValueError: the shapes differ, a dtype is not integer, or the counts could overflow.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted has shape {predicted.shape}, truth {truth.shape}; expected equal ones")
    for name, array in (("predicted", predicted), ("truth", truth)):
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name} has dtype {array.dtype}, expected integers")
    if truth.size >= 2**31:
        raise ValueError(f"{truth.size} pixels in one call, expected less than 2**31 (int32 counts); pass fewer images")
    column = jnp.where((predicted >= 0) & (predicted < classes), predicted.astype(jnp.int32), classes)
    row = truth.astype(jnp.int32)
    # Pixels that do not count get a bin of their own, which is cut off.
    nowhere = classes * (classes + 1)
    cell = jnp.where((row >= 0) & (row < classes), row * (classes + 1) + column, nowhere)
    counts = jnp.bincount(jnp.ravel(cell), length=nowhere + 1)
    return rearrange(counts[:nowhere].astype(jnp.int32), "(k c) -> k c", k=classes)


def summarise(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Every figure that follows from a confusion matrix, ready for JSON.

    IoU = TP / (TP + FP + FN) over all pixels at once. A prediction that is no class is a miss of the true
    class and a false alarm of none. The mean is over classes with a pixel in truth or prediction; mean
    accuracy (recall) is over classes with a pixel in the truth.

    Args:
      confusion: integer [K, K + 1], as summed from `confusion`.
      classes: the K names.

    Returns:
      `miou`, `mean_accuracy`, `pixel_accuracy` in 0..1 (None where nothing was counted), `per_class`
      {name: IoU or None}, `confusion` as K lists of K + 1 numbers.
    """
    counts = np.asarray(confusion, np.int64)
    if counts.shape != (len(classes), len(classes) + 1):
        raise ValueError(f"the confusion matrix has shape {counts.shape}, expected {(len(classes), len(classes) + 1)}")
    hits = np.diagonal(counts)
    in_truth = counts.sum(axis=1)
    in_prediction = counts[:, :-1].sum(axis=0)
    union = in_truth + in_prediction - hits
    ious = [_ratio(h, u) for h, u in zip(hits, union, strict=True)]
    recalls = [_ratio(h, t) for h, t in zip(hits, in_truth, strict=True)]
    return {
        "miou": _mean(ious),
        "mean_accuracy": _mean(recalls),
        "pixel_accuracy": _ratio(hits.sum(), counts.sum()),
        "per_class": dict(zip(classes, ious, strict=True)),
        "confusion": counts.tolist(),
    }


def group_figure(name: str) -> str:
    """What the mean IoU over a group of classes is called beside `miou`."""
    return f"miou_{name}"


def is_group_figure(figure: str) -> bool:
    """Whether a key of a result's figures is such a mean."""
    return figure.startswith("miou_") and figure != "miou_at_size"


def group_means(
    per_class: Mapping[str, float | None], classes: Sequence[str], groups: Mapping[str, Sequence[int]]
) -> dict[str, float | None]:
    """Mean IoU over each group of classes, as `miou` is over all: classes without a pixel are left out.

    Args:
      per_class: as `summarise` gives it.
      groups: name -> class ids.
    """
    return {group_figure(name): _mean([per_class[classes[k]] for k in ids]) for name, ids in groups.items()}


def _ratio(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
