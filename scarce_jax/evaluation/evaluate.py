"""Measures predicted masks over every image of a split, once, against the truth at its native size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from scarce_jax.data.schema import IGNORE
from scarce_jax.data.source import Rows, stream
from scarce_jax.evaluation.confusion import confusion
from scarce_jax.ops.resize import resize_dynamic

CANVAS_STEP = 128

Predict = Callable[[Any, dict, Mapping], jax.Array]


def native_canvas(height: int, width: int) -> tuple[int, int]:
    """The canvas of an image of this size: a function of it alone, with few values, so that few programs compile."""
    return -(-height // CANVAS_STEP) * CANVAS_STEP, -(-width // CANVAS_STEP) * CANVAS_STEP


@dataclasses.dataclass(frozen=True)
class MeasureRows:
    """Rows that also carry what is measured at native size.

    Adds to a sized row: `truth` uint8 on the native canvas (IGNORE beyond the image), `native_height`, `native_width`
    int32, and with `composite` the native `overlay` (the coarse mask).
    """

    rows: Rows
    composite: bool

    def __len__(self) -> int:
        return len(self.rows)

    def canvas_of(self, k: int) -> tuple[int, int]:
        return native_canvas(*self.rows.example(k)["image"].shape[:2])

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        example = self.rows.example(k)
        height, width = example["image"].shape[:2]
        canvas = native_canvas(height, width)
        row = self.rows.sized(example, self.rows.size or canvas)
        row |= {
            "truth": place(example["label"], canvas),
            "native_height": np.int32(height),
            "native_width": np.int32(width),
        }
        if self.composite:
            row["overlay"] = place(example["coarse"], canvas)
        return row


def place(mask: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """A mask at the top left of a canvas of IGNORE."""
    out = np.full(canvas, IGNORE, np.uint8)
    out[: mask.shape[0], : mask.shape[1]] = mask
    return out


def choose_labels(
    scores: jax.Array | None, rows: Mapping[str, jax.Array], canvas: tuple[int, int], composite: bool
) -> jax.Array:
    """Class ids uint8 [B, *canvas]: the largest score at native size, IGNORE where nothing is predicted.

    Args:
      scores: float [B, h, w, K] at the source's size, or None for no prediction at all.
      rows: with `height`, `width` (valid part of the scores), `native_height`, `native_width`, and `overlay` for the
        composite: coarse labels are kept where there are any (detailer paper, section 5, "Composite Prediction").
    """
    if scores is None:
        labels = jnp.full((rows["height"].shape[0], *canvas), IGNORE, jnp.uint8)
    else:
        labels = resize_scores(scores, rows, canvas).argmax(-1).astype(jnp.uint8)
    if composite:
        labels = jnp.where(rows["overlay"] != IGNORE, rows["overlay"], labels)
    return labels


def resize_scores(scores: jax.Array, rows: Mapping[str, jax.Array], canvas: tuple[int, int]) -> jax.Array:
    """Scores [B, h, w, K] at the source's size, brought to native size on a canvas [B, *canvas, K]."""
    sizes = [rows[key] for key in ("height", "width", "native_height", "native_width")]
    return jax.vmap(lambda score, *four: resize_dynamic(score, *four, canvas))(scores, *sizes)


class Measurement:
    """One evaluation, compiled once per canvas and reusable: a callable `(nets, consts) -> confusion`.

    Every device runs the same program on `batch` images whatever the number of devices, and the tail is filled with
    masked-out repeats, so the counts do not depend on how many devices there are.

    Args:
      predict: `(nets, batch, consts) -> scores [B, h, w, K]`, or None.
      transform: `(row, key, consts) -> row`, applied to each row first.
      batch: images per device.
      mesh: its only axis splits the batch.
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
    ):
        self._rows = MeasureRows(rows, composite)
        self._predict, self._transform, self._composite = predict, transform, composite
        self._classes, self._batch, self._mesh, self._threads = classes, batch, mesh, threads
        self._axis = mesh.axis_names[0]
        self._groups: dict[tuple[int, int], list[int]] | None = None
        self._held: list[tuple[tuple[int, int], dict]] | None = None
        self.compiled = jax.jit(self._count, static_argnames="canvas")

    def _count(
        self, nets: Any, rows: Mapping[str, jax.Array], consts: Any, *, canvas: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array]:
        def local(nets, rows, consts):
            key = jax.random.key(0)
            batch = jax.vmap(lambda row: self._transform(row, key, consts))(rows)
            scores = self._predict(nets, batch, consts) if self._predict else None
            labels = choose_labels(scores, rows, canvas, self._composite)
            native = self._confusion(labels, rows["truth"], rows["counts"])
            if scores is None:
                labels = jnp.full(rows["label"].shape, IGNORE, jnp.uint8)
            else:
                labels = scores.argmax(-1).astype(jnp.uint8)
            if self._composite:
                labels = jnp.where(rows["coarse"] != IGNORE, rows["coarse"], labels)
            return jax.lax.psum((native, self._confusion(labels, rows["label"], rows["counts"])), self._axis)

        specs = (P(), P(self._axis), P())
        return jax.shard_map(local, mesh=self._mesh, in_specs=specs, out_specs=P())(nets, rows, consts)

    def _confusion(self, labels: jax.Array, truth: jax.Array, counts: jax.Array) -> jax.Array:
        return confusion(labels, jnp.where(counts[:, None, None], truth, IGNORE), self._classes)

    def batches(self) -> Iterator[tuple[tuple[int, int], dict[str, jax.Array]]]:
        """Global batches with their canvas; `counts` is False for the rows that only fill the last one."""
        if self._groups is None:
            self._groups = group_by_canvas(self._rows)
        shape = jax.process_index(), jax.process_count()
        for canvas, members in self._groups.items():
            total = self._batch * self._mesh.size
            padded = -(-len(members) // total) * total
            source = padded_rows(self._rows.__getitem__, members)
            for rows in stream(source, padded, total, shard=shape, threads=self._threads):
                yield canvas, shard_rows(self._mesh, rows)

    def __call__(self, nets: Any, consts: Any) -> np.ndarray:
        """int64 [2, K, K + 1]: the exact confusion matrix over the split at native size, and at the source's size."""
        counts = np.zeros((2, self._classes, self._classes + 1), np.int64)
        pending = None
        for canvas, rows in self.batches():
            found = self.compiled(nets, rows, consts, canvas=canvas)
            if pending is not None:
                counts += np.asarray(pending)
            pending = found
        return counts + np.asarray(pending)


def group_by_canvas(rows: MeasureRows) -> dict[tuple[int, int], list[int]]:
    """Row numbers by native canvas, in order."""
    groups: dict[tuple[int, int], list[int]] = {}
    for k in range(len(rows)):
        groups.setdefault(rows.canvas_of(k), []).append(k)
    return groups


def padded_rows(load: Callable[[int], dict], members: Sequence[int]) -> Callable[[int], dict[str, np.ndarray]]:
    """Position -> row, with `counts` saying whether it is one of the members or a repeat that fills the tail."""

    def get(position: int) -> dict[str, np.ndarray]:
        row = load(members[min(position, len(members) - 1)])
        return {**row, "counts": np.bool_(position < len(members))}

    return get


def shard_rows(mesh: Mesh, rows: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows as global arrays, split over the mesh."""
    sharding = jax.sharding.NamedSharding(mesh, P(mesh.axis_names[0]))
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in rows.items()}
