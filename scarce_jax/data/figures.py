"""Figures that follow from a confusion matrix; NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summarise(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Every figure that follows from a confusion matrix, ready for JSON.

    IoU = TP / (TP + FP + FN) over all pixels at once. A prediction that is no class is a miss of the true
    class and a false alarm of none. The mean is over classes with a pixel in truth or prediction; mean
    accuracy (recall) is over classes with a pixel in the truth.

    Args:
      confusion: integer [K, K + 1], pixels by true class (row) and predicted class (column); the last column counts
        predictions that are no class (see `evaluation.confusion`).
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
    ious = [ratio(h, u) for h, u in zip(hits, union, strict=True)]
    recalls = [ratio(h, t) for h, t in zip(hits, in_truth, strict=True)]
    return {
        "miou": _mean(ious),
        "mean_accuracy": _mean(recalls),
        "pixel_accuracy": ratio(hits.sum(), counts.sum()),
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


def ratio(part: np.int64, whole: np.int64) -> float | None:
    """None where the whole is 0."""
    return float(part / whole) if whole else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
