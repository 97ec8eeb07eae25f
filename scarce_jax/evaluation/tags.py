"""Measures predicted image tags, every image of a split once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.figures import mean
from scarce_jax.data.source import Rows
from scarce_jax.evaluation import batching
from scarce_jax.recipe import Eval


class TagEvaluation:
    """One evaluation, compiled once: a callable `(nets, consts) -> (logits, tags)` over the whole split.

    Every device processes `batch` images; the repeats that fill the last batch are cut off.

    Args:
      rows: the opened source, with the field "tags" and one size for all images.
      evaluation: gives `predict`, the transform and the batch per device.
      mesh: a mesh of one axis.
      threads: loading threads.
    """

    def __init__(self, rows: Rows, evaluation: Eval, *, mesh: Mesh, threads: int):
        self._rows, self._batch, self._mesh, self._threads = rows, evaluation.source.batch, mesh, threads

        def local(nets: Any, rows: Mapping[str, jax.Array], consts: Any) -> tuple[jax.Array, jax.Array]:
            batch = jax.vmap(lambda row: evaluation.source.transform(row, jax.random.key(0), consts))(rows)
            return evaluation.predict(nets, batch, consts), batch["tags"]

        axis = mesh.axis_names[0]
        mapped = jax.shard_map(local, mesh=mesh, in_specs=(P(), P(axis), P()), out_specs=P(axis))
        # Replicated, so that every process has all rows.
        self.compiled = jax.jit(mapped, out_shardings=mesh_lib.replicated(mesh))

    def __call__(self, nets: Any, consts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits float32 [N, K or K - 1] and tags uint8 [N, K], in the order of the rows."""
        groups = {None: range(len(self._rows))}
        batches = batching.full_batches(
            self._rows.__getitem__, groups, batch=self._batch, mesh=self._mesh, threads=self._threads
        )
        outputs = [(len(numbers), self.compiled(nets, rows, consts)) for _, numbers, rows in batches]
        logits, tags = (
            np.concatenate([np.asarray(arrays[which])[:count] for count, arrays in outputs]) for which in range(2)
        )
        return logits, tags


def summarise_tags(
    logits: np.ndarray, tags: np.ndarray, classes: Sequence[str], background: int | None
) -> dict[str, Any]:
    """Computes the figures of the predicted tags of a split, as JSON values.

    Args:
      logits: float [N, K], or [N, K - 1] without the background.
      tags: [N, K], 0 or 1.
      classes: the K names.
      background: index of the background class, which is left out; or None.

    Returns:
      `map`: mean average precision over the classes that occur in the truth; `mean_f1`: mean F1 score at probability
      0.5 over the classes that occur in truth or prediction; both 0..1, or None without such a class. `per_class`:
      {name: average precision or None}.

    Raises:
      ValueError: the shapes do not match.
    """
    classed = [k for k in range(len(classes)) if k != background]
    if logits.shape[1] == len(classes):
        logits = logits[:, classed]
    if logits.shape != (len(tags), len(classed)) or tags.shape[1] != len(classes):
        raise ValueError(f"logits {logits.shape} and tags {tags.shape} do not fit {len(classes)} classes")
    truth = tags[:, classed].astype(bool)
    precisions = [average_precision(logits[:, k], truth[:, k]) for k in range(len(classed))]
    predicted = logits > 0
    hits, sizes = (predicted & truth).sum(0), predicted.sum(0) + truth.sum(0)
    return {
        "map": mean(precisions),
        "mean_f1": mean((2 * hits / np.maximum(sizes, 1))[sizes > 0].tolist()),
        "per_class": {classes[k]: p for k, p in zip(classed, precisions, strict=True)},
    }


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Average precision without interpolation: the sum over thresholds of the gain in recall times the precision.

    Args:
      scores: float [N]. Images of equal score pass the threshold together, so their order does not matter.
      truth: bool [N].

    Returns:
      0..1, or None if no image is positive.
    """
    if not truth.any():
        return None
    order = np.argsort(-scores, kind="stable")
    last_of_score = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(truth[order])[last_of_score]
    taken = np.flatnonzero(last_of_score) + 1
    return float(np.sum(np.diff(hits, prepend=0) * hits / taken) / truth.sum())
