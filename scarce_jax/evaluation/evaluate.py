"""Measures predicted masks over every image of a split, once, against the truth at its native size."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import RecordField, Rows
from scarce_jax.evaluation import passes
from scarce_jax.evaluation.confusion import confusion
from scarce_jax.evaluation.views import (
    NATIVE,
    SIZES,
    Predict,
    Scorer,
    merge,
    native_canvas,
    native_row,
    native_scores,
    resized,
    view_rows,
)
from scarce_jax.recipe import PLAIN, Views


@dataclasses.dataclass(frozen=True)
class MaskRows:
    """What one image is predicted from and measured against.

    A row holds, for each scale k of the views, `k/image`, `k/height`, `k/width` and `k/<field>`; `label`, `height`,
    `width` at the source's size; `truth` uint8 on the native canvas (IGNORE beyond the image), and what `native_row`
    has; and with `composite` the coarse mask: `coarse` at the source's size, `overlay` natively. With `stored` the mask
    of that field stands there instead.
    """

    rows: Rows
    composite: bool
    views: Views = PLAIN
    stored: RecordField | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def groups(self) -> dict[tuple[int, int], list[int]]:
        """Row numbers by native canvas."""
        return passes.by_canvas(self.rows.reader.sizes[list(self.rows.indices)])

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        example = self.rows.example(k)
        height, width = example["image"].shape[:2]
        canvas = native_canvas(height, width)
        size = self.rows.size or (height, width)
        overlay = example["coarse"] if self.composite else self.stored and self.stored.get(example)
        masks = {"label": example["label"]} | ({} if overlay is None else {"coarse": overlay})
        inputs = {key: value for key, value in example.items() if key != "label"}
        row = self.rows.sized(masks, size, self.rows.size or canvas)
        row |= view_rows(self.views, size, self.rows.size is not None, functools.partial(self.rows.sized, inputs))
        row |= {"truth": place(example["label"], canvas)} | native_row(example["image"], self.views)
        if overlay is not None:
            row |= {"overlay": self.rows.sized({"overlay": overlay}, (height, width), canvas)["overlay"]}
        return row


def place(mask: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """A mask at the top left of a canvas of IGNORE."""
    out = np.full(canvas, IGNORE, np.uint8)
    out[: mask.shape[0], : mask.shape[1]] = mask
    return out


def choose_labels(scores: jax.Array | None, overlay: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Class ids uint8 of `shape`: the largest score, IGNORE where nothing is predicted.

    Args:
      scores: float [*shape, K], or None for no prediction at all.
      overlay: uint8 of `shape` for the composite: coarse labels are kept where there are any (detailer paper,
        section 5, "Composite Prediction"); None for none.
    """
    labels = jnp.full(shape, IGNORE, jnp.uint8) if scores is None else scores.argmax(-1).astype(jnp.uint8)
    return labels if overlay is None else jnp.where(overlay != IGNORE, overlay, labels)


class MaskEvaluation:
    """One evaluation, compiled once and reusable: a callable `(nets, consts) -> confusion`.

    The nets are one program where the source has a size; what brings their scores to native size and counts is a small
    one per canvas. Every device runs the same program on `batch` images whatever the number of devices, and the tail is
    filled with masked-out repeats, so the counts do not depend on how many devices there are.

    Args:
      predict: `(nets, batch, consts) -> scores [B, h, w, K]`, or None.
      transform: `(row, key, consts) -> row`, applied to each row first.
      batch: images per device.
      mesh: its only axis splits the batch.
      views: see `Views`.
      stored: masks that are measured in place of a prediction.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        predict: Predict | None,
        transform: Callable,
        composite: bool,
        classes: int,
        batch: int,
        mesh: Mesh,
        threads: int,
        views: Views = PLAIN,
        stored: RecordField | None = None,
    ):
        self._rows = MaskRows(rows, composite, views, stored)
        self._composite = composite or stored is not None
        self._classes, self._batch, self._mesh, self._threads = classes, batch, mesh, threads
        self._axis = mesh.axis_names[0]
        self.scorer = Scorer(predict, transform, views, mesh) if predict else None
        specs = (P(self._axis), P(self._axis))

        def count(scores: Any, rows: Mapping[str, jax.Array], canvas: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
            counted = functools.partial(self._count, canvas=canvas)
            return jax.shard_map(counted, mesh=mesh, in_specs=specs, out_specs=P())(scores, rows)

        self.counter = jax.jit(count, static_argnames="canvas")

    def _count(
        self, scores: tuple[jax.Array, ...] | None, rows: Mapping[str, jax.Array], *, canvas: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array]:
        """Confusion at native size and at the source's."""

        def labels(scores: jax.Array | None, truth: jax.Array, overlay: str) -> jax.Array:
            return choose_labels(scores, rows[overlay] if self._composite else None, truth.shape)

        native = sized = None
        if scores:
            views, size = self._rows.views, rows["label"].shape[1:]
            native = native_scores(views, scores, rows, canvas)
            # What a CRF has refined is not predicted at another size, but brought to it.
            refined = views.crf is not None
            sized = resized(native, rows, NATIVE, SIZES, size) if refined else merge(scores, rows, size, SIZES)
        native, sized = labels(native, rows["truth"], "overlay"), labels(sized, rows["label"], "coarse")
        masks = (native, rows["truth"]), (sized, rows["label"])
        matrices = tuple(self._confusion(*pair, rows["counts"]) for pair in masks)
        return jax.lax.psum(matrices, self._axis)

    def _confusion(self, labels: jax.Array, truth: jax.Array, counts: jax.Array) -> jax.Array:
        return confusion(labels, jnp.where(counts[:, None, None], truth, IGNORE), self._classes)

    def __call__(self, nets: Any, consts: Any) -> np.ndarray:
        """int64 [2, K, K + 1]: the exact confusion matrix over the split at native size, and at the source's size."""
        counts = np.zeros((2, self._classes, self._classes + 1), np.int64)
        pending = None
        groups = self._rows.groups()
        load = self._rows.__getitem__
        for canvas, _, rows in passes.batches(load, groups, batch=self._batch, mesh=self._mesh, threads=self._threads):
            scores = self.scorer(nets, rows, consts) if self.scorer else None
            matrices = self.counter(scores, rows, canvas=canvas)
            if pending is not None:
                counts += np.asarray(pending)
            pending = matrices
        return counts + np.asarray(pending)
