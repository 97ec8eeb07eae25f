"""Measures predicted image tags over every image of a split, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from scarce_jax.data.source import Rows
from scarce_jax.evaluation import passes


class TagEvaluation:
    """One evaluation, compiled once and reusable: a callable `(nets, consts) -> (scores, tags)` over the whole split.

    Every device runs the same program on `batch` images; what fills the last batch is cut off.

    Args:
      rows: with the field "tags"; sized, so that one program serves all.
      predict: `(nets, batch, consts) -> logits [B, K]`, or [B, K - 1] without an output for the background.
      transform: `(row, key, consts) -> row`, applied to each row first.
      batch: images per device.
      mesh: its only axis splits the batch.
    """

    def __init__(self, rows: Rows, *, predict: Callable, transform: Callable, batch: int, mesh: Mesh, threads: int):
        self._rows, self._batch, self._mesh, self._threads = rows, batch, mesh, threads

        def local(nets: Any, rows: Mapping[str, jax.Array], consts: Any) -> tuple[jax.Array, jax.Array]:
            batch = jax.vmap(lambda row: transform(row, jax.random.key(0), consts))(rows)
            return predict(nets, batch, consts), rows["tags"]

        axis = mesh.axis_names[0]
        mapped = jax.shard_map(local, mesh=mesh, in_specs=(P(), P(axis), P()), out_specs=P(axis))
        # Replicated, so that every process holds all rows.
        self.compiled = jax.jit(mapped, out_shardings=NamedSharding(mesh, P()))

    def __call__(self, nets: Any, consts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32 [N, K or K - 1] and tags uint8 [N, K], in the order of the rows."""
        groups = {None: range(len(self._rows))}
        batches = passes.batches(
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
    """Every figure that follows from the scores of a split, ready for JSON.

    Args:
      logits: float [N, K], or [N, K - 1] without the background.
      tags: [N, K], 0 or 1.
      classes: the K names.
      background: index of the class left out; None if there is none.

    Returns:
      `map` (mean average precision over the classes that some image has), `mean_f1` (at probability 0.5, over the
      classes that some image has or is said to have), both in 0..1 or None where nothing counts, and `per_class`
      {name: average precision or None}.
    """
    classed = [k for k in range(len(classes)) if k != background]
    if logits.shape[1] == len(classes):
        logits = logits[:, classed]
    if logits.shape != (len(tags), len(classed)) or tags.shape[1] != len(classes):
        raise ValueError(f"logits {logits.shape} and tags {tags.shape} do not fit {len(classes)} classes")
    truth = tags[:, classed].astype(bool)
    precisions = [average_precision(logits[:, k], truth[:, k]) for k in range(len(classed))]
    said = logits > 0
    hits, sizes = (said & truth).sum(0), said.sum(0) + truth.sum(0)
    return {
        "map": _mean([p for p in precisions if p is not None]),
        "mean_f1": _mean((2 * hits / np.maximum(sizes, 1))[sizes > 0]),
        "per_class": {classes[k]: p for k, p in zip(classed, precisions, strict=True)},
    }


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Sum over thresholds of the gain in recall times the precision, without interpolation; None without a positive.

    Args:
      scores: float [N]; images of equal score pass the threshold together, so their order does not matter.
      truth: bool [N].
    """
    if not truth.any():
        return None
    order = np.argsort(-scores, kind="stable")
    last_of_score = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(truth[order])[last_of_score]
    taken = np.flatnonzero(last_of_score) + 1
    return float(np.sum(np.diff(hits, prepend=0) * hits / taken) / truth.sum())


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
