"""Quality of the pixels that a confidence selects.

Tables 3 and 4 of "Semi-Supervised Semantic Segmentation Using Auxiliary Network" (anonymous, under review).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scarce_jax.data.figures import summarise
from scarce_jax.data.schema import DatasetInfo
from scarce_jax.recipe import Artifact, Table

BINS, LOW, HIGH = 512, -16.0, 16.0
"""Number and range of the bins in which pixels are counted by the logit of their confidence."""


def selection_histograms(
    probabilities: jax.Array, confidence: jax.Array, labels: jax.Array, thresholds: Sequence[float]
) -> dict[str, jax.Array]:
    """Counts of each image's pixels from which the selection tables are computed, as shares of all its pixels.

    Args:
      probabilities: float32 [B, H, W, K], class probabilities of the segmenter.
      confidence: float32 [B, H, W], logits of the auxiliary net.
      labels: uint8 [B, H, W]; 255 = void, which is not counted.
      thresholds: T confidence thresholds, 0 to 1.

    Returns:
      Three float32 arrays:

      - `kept` [B, T, K, K]: confusion matrices (true class, predicted class) of the pixels kept at each threshold.
      - `auxiliary` [B, BINS, 2]: wrong and right pixels, by the confidence of the auxiliary net.
      - `softmax` [B, BINS, K, K]: confusion matrices, by the largest class probability.
    """
    classes = probabilities.shape[-1]
    highest = probabilities.max(-1)
    # The sum of the other classes' probabilities: 1 - p would be all rounding error where p is near 1.
    rest = jnp.where(jnp.arange(classes) == probabilities.argmax(-1)[..., None], 0.0, probabilities).sum(-1)
    predictions = probabilities.argmax(-1)
    valid = labels < classes
    pairs = jnp.where(valid, labels.astype(jnp.int32) * classes + predictions, classes**2)
    pixels = labels.shape[1] * labels.shape[2]

    def count(index: jax.Array, length: int) -> jax.Array:
        flat = index.reshape(index.shape[0], -1)
        # Indices out of range are counted in one more bin, which is cut off.
        counted = jax.vmap(lambda x: jnp.bincount(jnp.minimum(x, length), length=length + 1))(flat)
        return counted[:, :length].astype(jnp.float32) / pixels

    def bins(logit: jax.Array) -> jax.Array:
        position = (jnp.clip(logit, LOW, HIGH) - LOW) * (BINS / (HIGH - LOW))
        return jnp.minimum(position.astype(jnp.int32), BINS - 1)

    trust = jax.nn.sigmoid(confidence)
    confusions = [count(jnp.where(trust >= t, pairs, classes**2), classes**2) for t in thresholds]
    right = jnp.where(valid, bins(confidence) * 2 + (predictions == labels), 2 * BINS)
    by_softmax = bins(jnp.log(highest) - jnp.log(jnp.maximum(rest, 1e-30))) * classes**2 + pairs
    by_softmax = jnp.where(valid, by_softmax, BINS * classes**2)
    shape = (labels.shape[0], BINS)
    return {
        "kept": jnp.stack(confusions, 1).reshape(-1, len(thresholds), classes, classes),
        "auxiliary": count(right, 2 * BINS).reshape(*shape, 2),
        "softmax": count(by_softmax, BINS * classes**2).reshape(*shape, classes, classes),
    }


def selection_tables(stage: str, thresholds: Sequence[float], info: DatasetInfo) -> dict[str, Table]:
    """Tables `selection` (see `selection_table`) and `selection_classes` (see `class_table`).

    Args:
      stage: name of the stage that left the means of `selection_histograms`.
    """
    reads = {name: Artifact(stage=stage, name=name) for name in ("kept", "auxiliary", "softmax")}
    makers = {"selection": selection_table, "selection_classes": class_table}
    return {
        name: Table(reads=reads, make=functools.partial(make, thresholds=thresholds, classes=info.classes))
        for name, make in makers.items()
    }


def selection_table(
    values: Mapping[str, np.ndarray], thresholds: Sequence[float], classes: Sequence[str]
) -> dict[str, Any]:
    """Table with one row per threshold: quality and number of the pixels kept by the auxiliary confidence.

    "class semi ratio" is the share of a true class's pixels that are kept, averaged over the classes (section 4.3).
    "selected" is the share of all labelled pixels that are kept. The columns "softmax ..." are for the same number of
    pixels, as closely as the bins allow, selected by their largest class probability.
    """
    softmax = np.asarray(values["softmax"], np.float64)
    all_pixels = softmax.sum(0)
    rows = []
    # Summed from the most confident bin downwards.
    cumulated = softmax[::-1].cumsum(0)
    coverage = cumulated.sum((1, 2)) / all_pixels.sum()
    for threshold, confusion in zip(thresholds, np.asarray(values["kept"], np.float64), strict=True):
        selected = confusion.sum() / all_pixels.sum()
        # The nearest bin would keep some pixels where the confidence keeps none.
        equal = cumulated[np.abs(coverage - selected).argmin()] if selected > 0 else np.zeros_like(confusion)
        rows.append(
            [
                threshold,
                _miou(confusion, classes),
                _mean_ratio(confusion, all_pixels),
                float(selected),
                _miou(equal, classes),
                _mean_ratio(equal, all_pixels),
                float(equal.sum() / all_pixels.sum()),
            ]
        )
    columns = ["threshold", "mIoU", "class semi ratio", "selected"]
    columns += ["softmax mIoU", "softmax class semi ratio", "softmax selected"]
    by_softmax = np.stack([softmax.sum((1, 2)) - _diagonal(softmax), _diagonal(softmax)], -1)
    return {
        "columns": columns,
        "rows": rows,
        "auroc": {"auxiliary": auroc(values["auxiliary"]), "softmax": auroc(by_softmax)},
    }


def class_table(values: Mapping[str, np.ndarray], thresholds: Sequence[float], classes: Sequence[str]) -> dict:
    """Table with one row per class: IoU and class semi ratio ("ratio") of the kept pixels at each threshold."""
    all_pixels = np.asarray(values["softmax"], np.float64).sum(0)
    columns, cells = ["class"], []
    for threshold, confusion in zip(thresholds, np.asarray(values["kept"], np.float64), strict=True):
        columns += [f"IoU at {threshold:g}", f"ratio at {threshold:g}"]
        ious = _figures(confusion, classes)["per_class"]
        cells += [[ious[name] for name in classes], _ratios(confusion, all_pixels)]
    return {"columns": columns, "rows": [[name, *row] for name, *row in zip(classes, *cells, strict=True)]}


def auroc(counts: np.ndarray) -> float | None:
    """Area under the ROC curve of right against wrong pixels, 0 to 1; None if one of the two kinds does not occur.

    Args:
      counts: [bins, 2], wrong and right pixels, by increasing confidence. Pairs within a bin count half.
    """
    wrong, right = np.asarray(counts, np.float64).T
    pairs = wrong.sum() * right.sum()
    below = np.concatenate([[0.0], wrong.cumsum()[:-1]])
    return None if pairs == 0 else float((right * (below + wrong / 2)).sum() / pairs)


def _diagonal(matrices: np.ndarray) -> np.ndarray:
    return np.trace(matrices, axis1=-2, axis2=-1)


def _figures(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    # `summarise` takes integer counts, so the shares of pixels are scaled up.
    return summarise(np.pad(np.rint(confusion * 2.0**40), ((0, 0), (0, 1))), classes)


def _miou(confusion: np.ndarray, classes: Sequence[str]) -> float | None:
    return _figures(confusion, classes)["miou"] if confusion.sum() > 0 else None


def _ratios(confusion: np.ndarray, all_pixels: np.ndarray) -> list[float | None]:
    totals = all_pixels.sum(1)
    return [float(k / t) if t > 0 else None for k, t in zip(confusion.sum(1), totals, strict=True)]


def _mean_ratio(confusion: np.ndarray, all_pixels: np.ndarray) -> float:
    return float(np.mean([ratio for ratio in _ratios(confusion, all_pixels) if ratio is not None]))
