"""Measures predicted masks against the truth at native size, every image of a split once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax import mesh as mesh_lib
from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import RecordField, Rows, pad
from scarce_jax.evaluation import batching
from scarce_jax.evaluation.confusion import confusion
from scarce_jax.evaluation.native import (
    NATIVE,
    SIZES,
    bands,
    merge,
    native_canvas,
    native_row,
    native_scores,
    resized,
    rows_of_band,
)
from scarce_jax.evaluation.views import Scorer, view_rows
from scarce_jax.ops.confidence import reaches
from scarce_jax.recipe import PLAIN, Eval, Views


@dataclasses.dataclass(frozen=True)
class MaskRows:
    """Random access to the arrays that an image is predicted from and measured against.

    A row holds:

    * for each scale k of the views: `k/image`, `k/height`, `k/width` and `k/<field>`;
    * at the source's size: `label`, `height`, `width`, and with `composite` the coarse mask as `coarse`;
    * on the native canvas: `truth` uint8, IGNORE beyond the image, the keys of `native_row`, and with `composite` the
      coarse mask as `overlay`.

    With `stored`, the mask of that field takes the place of the coarse mask.
    """

    rows: Rows
    composite: bool
    views: Views = PLAIN
    stored: RecordField | None = None

    def groups(self) -> dict[tuple[int, int], list[int]]:
        """Row numbers by native canvas."""
        groups: dict[tuple[int, int], list[int]] = {}
        for k, (height, width) in enumerate(self.rows.reader.sizes[list(self.rows.indices)].tolist()):
            groups.setdefault(native_canvas(height, width), []).append(k)
        return groups

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        example = self.rows.example(k)
        height, width = example["image"].shape[:2]
        canvas = native_canvas(height, width)
        size = self.rows.valid((height, width))
        overlay = example["coarse"] if self.composite else self.stored and self.stored.get(example)
        masks = {"label": example["label"]} | ({} if overlay is None else {"coarse": overlay})
        inputs = {key: value for key, value in example.items() if key != "label"}
        row = self.rows.sized(masks, size, self.rows.size or canvas)
        row |= view_rows(self.views, size, self.rows.size, functools.partial(self.rows.sized, inputs))
        row |= {"truth": pad(example["label"], canvas, IGNORE)} | native_row(example["image"], self.views)
        if overlay is not None:
            row |= {"overlay": self.rows.sized({"overlay": overlay}, (height, width), canvas)["overlay"]}
        return row


def choose_labels(
    scores: jax.Array | None, overlay: jax.Array | None, shape: tuple[int, ...], threshold: float | None = None
) -> jax.Array:
    """Returns the class ids of a prediction: uint8 of `shape`, the class of the largest score.

    Args:
      scores: float [*shape, K]; None predicts IGNORE everywhere.
      overlay: uint8 of `shape`, or None. Its classes replace the predicted ones wherever it is not IGNORE, which gives
        the composite of the detailer paper (section 5, "Composite Prediction").
      shape: shape of the result.
      threshold: if given, the scores have one more channel, the confidences 0..1; IGNORE where they are below it.
    """
    if scores is None:
        labels = jnp.full(shape, IGNORE, jnp.uint8)
    elif threshold is None:
        labels = scores.argmax(-1).astype(jnp.uint8)
    else:
        labels = jnp.where(reaches(scores[..., -1], threshold), scores[..., :-1].argmax(-1), IGNORE).astype(jnp.uint8)
    return labels if overlay is None else jnp.where(overlay != IGNORE, overlay, labels)


class MaskEvaluation:
    """One evaluation, compiled once: a callable `(nets, consts) -> confusion`.

    If the source has a size, the nets are one program; a second, small program per native canvas resizes their scores
    and counts. Every device processes `batch` images whatever the number of devices, and the last batch is filled with
    repeats that do not count, so the counts do not depend on the number of devices.

    Args:
      rows: the opened source.
      evaluation: gives `predict`, the transform, the batch per device, the views, and whether to measure the composite.
      classes: number of classes.
      mesh: a mesh of one axis.
      threads: loading threads.
      stored: records to measure in place of a prediction.
    """

    def __init__(
        self,
        rows: Rows,
        evaluation: Eval,
        *,
        classes: int,
        mesh: Mesh,
        threads: int,
        stored: RecordField | None = None,
    ):
        self._composite, self._threshold = evaluation.composite or stored is not None, evaluation.threshold
        self._classes, self._batch, self._mesh, self._threads = classes, evaluation.source.batch, mesh, threads
        self._axis = mesh.axis_names[0]
        predict, transform, views = evaluation.predict, evaluation.source.transform, evaluation.views
        self._rows = MaskRows(rows, evaluation.composite, views, stored)
        self._interpolation = evaluation.source.interpolation
        self.scorer = Scorer(predict, transform, views, mesh, self._interpolation) if predict else None
        specs = (P(self._axis), P(self._axis), P())

        def count(scores: Any, rows: Mapping[str, jax.Array], first_row: Any, canvas: tuple[int, int], at_size: bool):
            counted = functools.partial(self._count, canvas=canvas, at_size=at_size)
            return jax.shard_map(counted, mesh=mesh, in_specs=specs, out_specs=P())(scores, rows, first_row)

        self.counter = jax.jit(count, static_argnames=("canvas", "at_size"))

    def _count(
        self,
        scores: tuple[jax.Array, ...] | None,
        rows: Mapping[str, jax.Array],
        first_row: jax.Array,
        *,
        canvas: tuple[int, int],
        at_size: bool,
    ) -> tuple[jax.Array, ...]:
        """Confusion matrices of a band at native size and, with `at_size`, of the whole batch at the source's size."""
        views, size = self._rows.views, rows["label"].shape[1:]
        native = sized = None
        if scores:
            native = native_scores(views, scores, rows, canvas, first_row, self._interpolation)
            # A CRF works at native size, so its result is resized.
            refined = views.crf is not None
            if at_size:
                sized = (
                    resized(native, rows, NATIVE, SIZES, size)
                    if refined
                    else merge(scores, rows, size, SIZES, interpolation=self._interpolation)
                )
        band = {key: rows_of_band(rows[key], first_row, canvas[0]) for key in ("truth", "overlay") if key in rows}

        def confused(scores: jax.Array | None, truth: jax.Array, overlay: jax.Array | None) -> jax.Array:
            predicted = choose_labels(scores, overlay if self._composite else None, truth.shape, self._threshold)
            return confusion(predicted, jnp.where(rows["counts"][:, None, None], truth, IGNORE), self._classes)

        matrices = [confused(native, band["truth"], band.get("overlay"))]
        if at_size:
            matrices.append(confused(sized, rows["label"], rows.get("coarse")))
        return jax.lax.psum(tuple(matrices), self._axis)

    def __call__(self, nets: Any, consts: Any) -> np.ndarray:
        """Returns int64 [2, K, K + 1]: the confusion matrices at native size and at the source's size."""
        counts = np.zeros((2, self._classes, self._classes + 1), np.int64)
        pending: list[tuple[jax.Array, ...]] = []
        groups = self._rows.groups()
        load = self._rows.__getitem__
        for canvas, _, rows in batching.full_batches(
            load, groups, batch=self._batch, mesh=self._mesh, threads=self._threads
        ):
            scores = self.scorer(nets, rows, consts) if self.scorer else None
            height, first_rows = bands(self._batch, canvas, self._classes, self._rows.views)
            for first_row in first_rows:
                # The whole batch at the source's size is counted beside the first band.
                row = mesh_lib.replicate(self._mesh, np.int32(first_row))
                matrices = self.counter(scores, rows, row, canvas=(height, canvas[1]), at_size=first_row == 0)
                pending.append(matrices)
                if len(pending) > 1:
                    _add(counts, pending.pop(0))
        _add(counts, pending.pop())
        return counts


def _add(counts: np.ndarray, matrices: tuple[jax.Array, ...]) -> None:
    """Adds the matrices of a band, and waits for them."""
    for total, matrix in zip(counts, matrices, strict=False):
        total += np.asarray(matrix)
