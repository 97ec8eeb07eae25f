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
from scarce_jax.ops.confidence import reaches
from scarce_jax.ops.resize import on_image
from scarce_jax.recipe import Artifact, Table

BINS, LOW, HIGH = 512, -16.0, 16.0
"""Number and range of the bins in which pixels are counted by the logit of their confidence."""


def selection_counts(
    probabilities: jax.Array, confidence: jax.Array, labels: jax.Array, thresholds: Sequence[float], size: jax.Array
) -> dict[str, jax.Array]:
    """Counts of each image's pixels from which the selection tables are computed, as shares of the canvas.

    Args:
      probabilities: float32 [B, H, W, K], class probabilities of the segmenter.
      confidence: float32 [B, H, W], logits of the auxiliary net.
      labels: uint8 [B, H, W]; 255 = void.
      thresholds: T confidence thresholds, 0 to 1.
      size: int [B, 2], height and width of the images on the canvas H x W; padding is void.

    Returns:
      Five float32 arrays. All but the second and the last are of the pixels that are not void.

      - `kept` [B, T, K, K]: confusion matrices (true class, predicted class) of the pixels kept at each threshold.
      - `kept_void` [B, T]: void pixels that are kept.
      - `auxiliary` [B, BINS, 2]: wrong and right pixels, by the confidence of the auxiliary net.
      - `softmax` [B, BINS, K, K]: confusion matrices, by the largest class probability.
      - `pixels` [B]: all pixels of the image.
    """
    classes = probabilities.shape[-1]
    highest = probabilities.max(-1)
    predictions = probabilities.argmax(-1)
    # The sum of the other classes' probabilities: 1 - p would be all rounding error where p is near 1.
    rest = jnp.where(jnp.arange(classes) == predictions[..., None], 0.0, probabilities).sum(-1)
    softmax = jnp.log(highest) - jnp.log(jnp.maximum(rest, 1e-30))
    inside = on_image(labels.shape[1:], *size.T)  # [B, H, W]
    kept = [reaches(jax.nn.sigmoid(confidence), threshold) for threshold in thresholds]
    return {
        "kept": jnp.stack([confusions(predictions, labels, classes, trusted) for trusted in kept], 1),
        "kept_void": jnp.stack([(trusted & inside & (labels >= classes)).mean((1, 2)) for trusted in kept], 1),
        "auxiliary": _shares(
            jnp.where(labels < classes, _bins(confidence) * 2 + (predictions == labels), 2 * BINS), 2 * BINS
        ).reshape(-1, BINS, 2),
        "softmax": confusions_by_logit(predictions, labels, classes, softmax),
        "pixels": inside.mean((1, 2)),
    }


def confusions(predictions: jax.Array, labels: jax.Array, classes: int, counts: jax.Array | bool = True) -> jax.Array:
    """Confusion matrix (true class, predicted class) of each image, as shares of its pixels: float32 [B, K, K].

    Args:
      predictions: integer [B, H, W], class ids.
      labels: uint8 [B, H, W]; 255 = void, which is not counted.
      classes: K.
      counts: bool [B, H, W], which pixels are counted.
    """
    pairs = labels.astype(jnp.int32) * classes + predictions
    counted = _shares(jnp.where((labels < classes) & counts, pairs, classes**2), classes**2)
    return counted.reshape(-1, classes, classes)


def confusions_by_logit(predictions: jax.Array, labels: jax.Array, classes: int, logit: jax.Array) -> jax.Array:
    """`confusions` by the logit of a confidence, float [B, H, W], from the least: float32 [B, BINS, K, K]."""
    pairs = _bins(logit) * classes**2 + labels.astype(jnp.int32) * classes + predictions
    counted = _shares(jnp.where(labels < classes, pairs, BINS * classes**2), BINS * classes**2)
    return counted.reshape(-1, BINS, classes, classes)


def _bins(logit: jax.Array) -> jax.Array:
    position = (jnp.clip(logit, LOW, HIGH) - LOW) * (BINS / (HIGH - LOW))
    return jnp.minimum(position.astype(jnp.int32), BINS - 1)


def _shares(index: jax.Array, length: int) -> jax.Array:
    """How often each number below `length` occurs in int [B, H, W], as shares of H * W: float32 [B, length]."""
    flat = index.reshape(index.shape[0], -1)
    # Larger numbers are counted in one more bin, which is cut off.
    counted = jax.vmap(lambda x: jnp.bincount(x, length=length + 1))(flat)
    return counted[:, :length].astype(jnp.float32) / flat.shape[1]


def selection_tables(stage: str, thresholds: Sequence[float], info: DatasetInfo) -> dict[str, Table]:
    """Tables `selection` (see `selection_table`) and `selection_classes` (see `class_table`).

    Args:
      stage: name of the stage that left the means of `selection_counts`.
    """
    reads = {name: Artifact(stage=stage, name=name) for name in ("kept", "kept_void", "auxiliary", "softmax", "pixels")}
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
    "selected" is the share of all labelled pixels that are kept, and "selected of image" that of all pixels, void ones
    too, as in table 3 of the paper. The columns "softmax ..." are for as many labelled pixels, those of the largest
    class probability.
    """
    softmax = np.asarray(values["softmax"], np.float64)
    all_pixels = softmax.sum(0)
    rows = []
    kept = (np.asarray(values[name], np.float64) for name in ("kept", "kept_void"))
    for threshold, confusion, void in zip(thresholds, *kept, strict=True):
        selected = float(confusion.sum() / all_pixels.sum())
        equal = most_confident(softmax, selected)
        rows.append(
            [
                threshold,
                mean_iou(confusion, classes),
                mean_ratio(confusion, all_pixels),
                selected,
                float((confusion.sum() + void) / values["pixels"]),
                mean_iou(equal, classes),
                mean_ratio(equal, all_pixels),
            ]
        )
    columns = ["threshold", "mIoU", "class semi ratio", "selected", "selected of image"]
    columns += ["softmax mIoU", "softmax class semi ratio"]
    return {
        "columns": columns,
        "rows": rows,
        "auroc": {"auxiliary": auroc(values["auxiliary"]), "softmax": auroc(_by_correctness(softmax))},
    }


def most_confident(histogram: np.ndarray, share: float) -> np.ndarray:
    """Confusion matrix [K, K] of the most confident pixels of a histogram.

    Args:
      histogram: mean of `confusions_by_logit`, [BINS, K, K].
      share: how many of its pixels, 0..1. The pixels of the last bin that is needed count in part, all alike.
    """
    bins = np.asarray(histogram, np.float64)[::-1]
    pixels = bins.sum((1, 2))
    whole = pixels.cumsum()
    last = min(int(np.searchsorted(whole, share * whole[-1])), len(bins) - 1)
    lacking = share * whole[-1] - (whole[last] - pixels[last])
    return bins[:last].sum(0) + bins[last] * (lacking / pixels[last] if pixels[last] else 0.0)


def class_table(values: Mapping[str, np.ndarray], thresholds: Sequence[float], classes: Sequence[str]) -> dict:
    """Table with one row per class: IoU and class semi ratio ("ratio") of the kept pixels at each threshold."""
    all_pixels = np.asarray(values["softmax"], np.float64).sum(0)
    columns, cells = ["class"], []
    for threshold, confusion in zip(thresholds, np.asarray(values["kept"], np.float64), strict=True):
        columns += [f"IoU at {threshold:g}", f"ratio at {threshold:g}"]
        ious = _figures(confusion, classes)["per_class"]
        cells += [[ious[name] for name in classes], class_ratios(confusion, all_pixels)]
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


def _by_correctness(histogram: np.ndarray) -> np.ndarray:
    """Wrong and right pixels of `confusions_by_logit`: [BINS, K, K] to [BINS, 2]."""
    right = np.trace(histogram, axis1=-2, axis2=-1)
    return np.stack([histogram.sum((1, 2)) - right, right], -1)


def _figures(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    # `summarise` takes integer counts, so the shares of pixels are scaled up.
    return summarise(np.pad(np.rint(confusion * 2.0**40), ((0, 0), (0, 1))), classes)


def mean_iou(confusion: np.ndarray, classes: Sequence[str]) -> float | None:
    """mIoU of a confusion matrix of shares, [K, K]; None if it is all zeros."""
    return _figures(confusion, classes)["miou"] if confusion.sum() > 0 else None


def class_ratios(confusion: np.ndarray, all_pixels: np.ndarray) -> list[float | None]:
    """Class semi ratios: the share of each true class's pixels in `all_pixels` [K, K] that `confusion` has, or None."""
    totals = all_pixels.sum(1)
    return [float(k / t) if t > 0 else None for k, t in zip(confusion.sum(1), totals, strict=True)]


def mean_ratio(confusion: np.ndarray, all_pixels: np.ndarray) -> float:
    """Mean of the `class_ratios` of the classes that occur."""
    return float(np.mean([ratio for ratio in class_ratios(confusion, all_pixels) if ratio is not None]))
