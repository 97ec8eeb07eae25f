"""Figures computed from a confusion matrix, with NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

AT_SIZE = "miou_at_size"
"""Key of the mean IoU at the size of the prediction, in a result's figures."""


def summarise(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Computes all figures of a confusion matrix, as JSON values.

    IoU is TP / (TP + FP + FN) over the pixels of all images. A prediction that is no class is a false negative of the
    true class and a false positive of none. Mean IoU is over the classes that occur in truth or prediction; mean
    accuracy (recall) is over the classes that occur in the truth.

    Args:
      confusion: integer [K, K + 1], pixels by true class (row) and predicted class (column). The last column counts
        predictions that are no class (see `evaluation.confusion`).
      classes: the K names.

    Returns:
      `miou`, `mean_accuracy` and `pixel_accuracy` in 0..1, or None if nothing was counted; `per_class`: {name: IoU or
      None}; `classes_measured`: number of classes that `miou` is a mean over; `confusion`: K lists of K + 1 numbers.

    Raises:
      ValueError: the matrix has another shape.
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
        "miou": mean(ious),
        "mean_accuracy": mean(recalls),
        "pixel_accuracy": ratio(hits.sum(), counts.sum()),
        "per_class": dict(zip(classes, ious, strict=True)),
        "classes_measured": sum(iou is not None for iou in ious),
        "confusion": counts.tolist(),
    }


COVERED = {
    "coverage": "coverage",
    "mean_coverage": "mean coverage of classes",
    "precision": "precision",
    "covered_miou": "mIoU there",
}
"""Figures of masks that leave pixels void (`covered`) -> their headings."""

COVERED_BY_CLASS = {
    "coverage_per_class": "coverage",
    "precision_per_class": "precision",
    "covered_per_class": "IoU there",
}
"""The same by class."""


def covered(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Computes figures of the pixels to which masks give a class; {} if that is every pixel.

    Args:
      confusion, classes: as in `summarise`.

    Returns:
      `coverage`, the share of such pixels among those of the truth; `mean_coverage`, the mean over the classes of the
      truth; `precision`, the share of such pixels that are right; `covered_miou`, the mIoU where all other pixels count
      as void in the truth; and by class `coverage_per_class`, `precision_per_class` (of the pixels to which masks give
      the class) and `covered_per_class` (IoU). All are 0..1, or None if there is no such pixel.
    """
    counts = np.asarray(confusion, np.int64)
    if not counts[:, -1].any():
        return {}
    predicted = counts[:, :-1]
    shares = [ratio(kept, all_) for kept, all_ in zip(predicted.sum(1), counts.sum(1), strict=True)]
    right = [ratio(hits, all_) for hits, all_ in zip(np.diagonal(predicted), predicted.sum(0), strict=True)]
    figures = summarise(np.pad(predicted, ((0, 0), (0, 1))), classes)
    return {
        "coverage": ratio(predicted.sum(), counts.sum()),
        "mean_coverage": mean(shares),
        "precision": figures["pixel_accuracy"],
        "covered_miou": figures["miou"],
        "coverage_per_class": dict(zip(classes, shares, strict=True)),
        "precision_per_class": dict(zip(classes, right, strict=True)),
        "covered_per_class": figures["per_class"],
    }


def share_of_classes(per_class: Mapping[str, float | None]) -> str:
    """Returns "1 of 2 classes" if a mean over classes is not over all of them, else ""."""
    measured = sum(value is not None for value in per_class.values())
    return "" if measured == len(per_class) else f"{measured} of {len(per_class)} classes"


def group_figure(name: str) -> str:
    """Returns the key of the mean IoU of a group of classes."""
    return f"miou_{name}"


def is_group_figure(figure: str) -> bool:
    """Whether a key of a result's figures is one of `group_figure`."""
    return figure.startswith("miou_") and figure != AT_SIZE


def is_figure(name: str) -> bool:
    """Whether a key of a paper's figures of a result is that of a figure, not the name of a class."""
    return name in ("miou", "mean_accuracy", "pixel_accuracy") or name.startswith("miou_")


def group_means(
    per_class: Mapping[str, float | None], classes: Sequence[str], groups: Mapping[str, Sequence[int]]
) -> dict[str, float | None]:
    """Computes the mean IoU of each group of classes, by `group_figure`; classes without a pixel are left out.

    Args:
      per_class: as returned by `summarise`.
      classes: all class names.
      groups: name -> class ids.
    """
    return {group_figure(name): mean([per_class[classes[k]] for k in ids]) for name, ids in groups.items()}


def ratio(part: np.int64, whole: np.int64) -> float | None:
    """Returns part / whole; None if the whole is 0."""
    return float(part / whole) if whole else None


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def printed(names: Sequence[str], percentages: str) -> dict[str, float]:
    """A row of a paper's table, in which percentages stand one after the other: name -> share, 0..1.

    Raises:
      ValueError: there are not as many numbers as names.
    """
    return dict(zip(names, (round(float(number) / 100, 4) for number in percentages.split()), strict=True))


def cited(paper: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of `config.paper` outside its tables: result -> figure or class -> number (see `sweep.paper`)."""
    own = {name: value for name, value in paper.items() if isinstance(value, float) or not _is_other(value)}
    return {name: in_full(value, paper) for name, value in own.items()}


def in_full(entry: Any, paper: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of `config.paper` by figure; a single number is that of the figure that `paper` names."""
    if entry is None:
        return {}
    return dict(entry) if isinstance(entry, Mapping) else {paper.get("figure", "miou"): entry}


def numbers(paper: Mapping[str, Any]) -> dict[str, Any]:
    """`config.paper` with one number for each result, its main figure; what has none is left out of the results."""

    def main(entry: Any) -> Any:
        figures = in_full(entry, paper)
        return next((figures[name] for name in (paper.get("figure", "miou"), *figures) if name in figures), None)

    tables = {
        name: {key: [main(x) if isinstance(x, Mapping) else x for x in column] for key, column in table.items()}
        for name, table in paper.items()
        if isinstance(table, Mapping) and _is_other(table)
    }
    own = {name: value for name in cited(paper) if isinstance(value := main(paper[name]), float)}
    return {**({"figure": paper["figure"]} if "figure" in paper else {}), **own, **tables}


def beside(table: Mapping[str, Any], entry: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """A table of a run with the paper's figures beside its own.

    Args:
      table: {"columns", "rows", ...}, with what names a row in the first column.
      entry: first cell of a row -> column -> the paper's figure.
    """
    rows = {_key(name): row for name, row in entry.items()}
    columns = [column for column in table["columns"] if any(column in row for row in rows.values())]
    return {
        **table,
        "columns": [*table["columns"], *(f"paper's {column}" for column in columns)],
        "rows": [[*row, *(rows.get(_key(row[0]), {}).get(column) for column in columns)] for row in table["rows"]],
    }


def _key(cell: Any) -> str:
    return f"{float(cell):g}" if isinstance(cell, int | float) else str(cell)


def _is_other(value: Any) -> bool:
    """Whether an entry of `config.paper` is no figures: a name, a list, or a table with its columns."""
    return not isinstance(value, Mapping) or any(isinstance(column, list | tuple) for column in value.values())
